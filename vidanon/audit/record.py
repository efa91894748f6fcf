"""What an audit found, as plain records. Numbers only: no source picture, landmark or embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vidanon.recognisers import RECOGNISERS, Recogniser
from vidanon.types import Float

UNCOVERED = -1
"""Stands for the track of a source face that no track of the plan covers."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One source face against what the output shows in its place.

    Attributes:
        frame: index.
        time_s: seconds from the first frame.
        scores: by name of the recogniser; SFace's alone where the output shows no face.
        shown: whether a face was found in the output. If not, SFace looked at the place itself.
        recognised_by: recognisers that take both for one person.
        apart: whether they compared the output with other frames of the source, see :mod:`vidanon.behind`.
    """

    frame: int
    time_s: float
    scores: Mapping[str, float]
    shown: bool
    recognised_by: tuple[str, ...]
    apart: bool = False


@dataclass(frozen=True, slots=True)
class TrackAudit:
    """One face through the video.

    Attributes:
        track: number in the plan, or of the followed face where there is no plan.
        person: number in the plan, or -1.
        start_s, end_s: first and last moment, seconds.
        frames: length; ``obscured`` of them were obscured (None: not known without a plan).
        samples: what the recognisers saw, in order.
        figures: utility and stability by name; None where nothing could be measured.
    """

    track: int
    person: int
    start_s: float
    end_s: float
    frames: int
    obscured: int | None
    samples: tuple[Sample, ...]
    figures: dict[str, float | None]

    @property
    def failing(self) -> tuple[Sample, ...]:
        """Samples in which someone is recognised."""
        return tuple(sample for sample in self.samples if sample.recognised_by)

    def worst(self, recogniser: Recogniser) -> float | None:
        """Return the score nearest to one person where a face shows, or somebody is recognised."""
        told = [s.scores for s in self.samples if s.shown or s.recognised_by]
        scores = [scores[recogniser.name] for scores in told if recogniser.name in scores]
        return min(scores, key=recogniser.margin, default=None)


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Span:
    """Frames of one track in one state, for the timeline: ``replaced``, ``obscured`` or ``leak``."""

    track: int
    start_s: float
    end_s: float
    state: str


@dataclass(frozen=True, slots=True)
class Audit:
    """The result.

    Attributes:
        source, output: the two files.
        checks: all of them; the file is vouched for only if every one passed.
        tracks: by number.
        leaks: source faces whose pixels are still there, boxes (4,) by frame.
        beside: faces that are recognised where no new face was drawn, although they are no part of a track or
            the track is obscured there; boxes (4,) by frame.
        times_s: of the source's frames.
        totals: utility and stability over all tracks, by name.
        container: what the files hold, by name: (source, output).
        recognisers: those that judged.
        thumbnails: JPEG of the output's face by track; empty unless every check passed.
        notes: what a reader should know.
    """

    source: Path
    output: Path
    checks: tuple[Check, ...]
    tracks: tuple[TrackAudit, ...]
    leaks: dict[int, list[Float]]
    times_s: list[float]
    totals: dict[str, float | None]
    container: dict[str, tuple[str, str]]
    recognisers: tuple[str, ...]
    spans: tuple[Span, ...] = ()
    thumbnails: dict[int, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    beside: dict[int, list[Float]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def failures(self) -> str:
        """Say in one line what did not pass, with tracks and times."""
        return "; ".join(f"{check.name}: {check.detail}" for check in self.checks if not check.passed)

    def summary(self) -> str:
        """Say in one line what was measured."""
        passed = sum(check.passed for check in self.checks)
        text = f"{passed} of {len(self.checks)} checks passed"
        worst = {r: [s for t in self.tracks if (s := t.worst(r)) is not None] for r in RECOGNISERS}
        said = [f"{r.name} {min(scores, key=r.margin):.2f}" for r, scores in worst.items() if scores]
        return f"{text}; worst frame: {', '.join(said)}" if said else text


def clock(seconds: float) -> str:
    """Write seconds as minutes and seconds, for example ``1:02.4``."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"
