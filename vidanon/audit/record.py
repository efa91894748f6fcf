"""What an audit found, as plain records. Numbers only: no source picture, landmark or embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vidanon.types import Float

UNCOVERED = -1
"""Stands for the track of a source face that no track of the plan covers."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One source face against what the output shows in its place.

    Attributes:
        frame: index.
        time_s: seconds from the first frame.
        similarity: SFace cosine.
        distance: dlib distance; None without dlib, and where the output shows no face.
        shown: whether a face was found in the output. If not, SFace looked at the place itself.
        recognised_by: recognisers that take both for one person.
    """

    frame: int
    time_s: float
    similarity: float
    distance: float | None
    shown: bool
    recognised_by: tuple[str, ...]


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

    @property
    def worst_similarity(self) -> float | None:
        """Highest SFace similarity of the samples that show a face, or in which somebody is recognised."""
        return max((s.similarity for s in self.samples if s.shown or s.recognised_by), default=None)

    @property
    def worst_distance(self) -> float | None:
        """Smallest dlib distance of all samples."""
        return min((s.distance for s in self.samples if s.distance is not None), default=None)


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
        worst = max((t.worst_similarity for t in self.tracks if t.worst_similarity is not None), default=None)
        nearest = min((t.worst_distance for t in self.tracks if t.worst_distance is not None), default=None)
        if worst is not None:
            text += f"; worst frame: SFace {worst:.2f}"
        if nearest is not None:
            text += f", dlib {nearest:.2f}"
        return text


def clock(seconds: float) -> str:
    """Write seconds as minutes and seconds, for example ``1:02.4``."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"
