"""Judge a few frames of everyone who shows for long, before the whole video is drawn.

A new face that the audit would refuse often fails here already, for the price of some frames. Nothing follows
from passing: the result is audited all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vidanon.audit.record import TrackAudit
from vidanon.audit.verdict import Judged, verdicts
from vidanon.behind import judged_apart
from vidanon.compare import judge_frames
from vidanon.facework import Face, outcome
from vidanon.identity.sources import with_sources
from vidanon.identity.views import evenly, places_of
from vidanon.progress import Meter
from vidanon.recognisers import fetch_recognisers, margins_of
from vidanon.stages.workers import one_thread_each, ordered_map, worker_pool
from vidanon.types import Frame, Plan, Track

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.rendersummary import RenderSummary
    from vidanon.settings import Settings
    from vidanon.side_by_side import Frames

SHORTEST_FRAMES = 120
"""Who shows for less is drawn at once: that takes hardly longer."""
EVERY_FRAMES, MOST_FRAMES = 24, 32
"""One frame of so many is drawn, and no more than so many of a person. They are drawn as large as in the end:
with the exit of 256 px in place of 512, three other frames of the sample clip failed and none that did."""
NEAREST, NEAR = 4, 0.1
"""Then, where a face comes nearest to the line between two people and one, in so many places at most and no
further from it, frames beside these. Of slight refusals of the sample clip (5 or 7 of 107 samples, three
keys) the first frames alone would have foretold one of five, all together nearly nine of ten."""
BESIDE = (-1 / 3, -1 / 6, 1 / 6, 1 / 3)
"""So far beside, in parts of the way to the next of the first frames."""
AHEAD_FRAMES = 3
"""So many are drawn while one is judged."""
Place = tuple[Track, int]
"""A track, and a row of it in which it shows."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the recognisers say of some frames.

    Attributes:
        plan: what was drawn from, with those who are replaced in it.
        tracks: by number, those that were drawn.
        summary: what was drawn.
    """

    plan: Plan
    tracks: tuple[TrackAudit, ...]
    summary: RenderSummary


def rehearse(
    source: Path,
    plan: Plan,
    settings: Settings,
    models: ModelStore,
    progress: Meter | None = None,
) -> Rehearsal | None:
    """Draw everyone who shows for long in some frames, and judge them as the audit does.

    Args:
        source: the video.
        plan: who is where, and which new face each person gets.
        settings: as for rendering.
        models: where the networks are.
        progress: called with (frames done, frames to be drawn as far as is known).

    Returns:
        What was found; None where nobody shows for long.

    Raises:
        InputError, ModelsError, DeviceError: see :mod:`vidanon.errors`.
    """
    places = {person: mine for person, mine in places_of(plan).items() if len(mine) >= SHORTEST_FRAMES}
    if not places:
        return None
    stage = _Stage(source, with_sources(source, plan, models, settings.runtime), settings, models, progress)
    first = {person: _first(mine, plan.identities[person].failed_at) for person, mine in places.items()}
    stage.judge([mine[at] for person, mine in places.items() for at in first[person]])
    closer = {person: _closer(mine, first[person], stage.judged) for person, mine in places.items()}
    if any(closer.values()):
        stage.judge([mine[at] for person, mine in places.items() for at in closer[person]])
    return Rehearsal(stage.plan, stage.by_track(), stage.summary)


def _first(places: Sequence[Place], failed_at: Collection[int]) -> list[int]:
    """Return at which places somebody is drawn: evenly, and where they were recognised before."""
    some = evenly(range(len(places)), _count(places))
    return sorted({*some, *(at for at, place in enumerate(places) if _frame(place) in failed_at)})


def _closer(places: Sequence[Place], first: list[int], judged: Mapping[int, Judged]) -> list[int]:
    """Return at which places somebody is drawn as well: beside the nearest of the first, if none fails."""
    margins = {
        (number, pair.frame): min(margins_of(pair.scores).values())
        for number, (pairs, _) in judged.items()
        for pair in judged_apart(pairs)
    }
    known = {at: margins[key] for at in first if (key := (places[at][0].id, _frame(places[at]))) in margins}
    if min(known.values(), default=0.0) < 0:
        return []
    nearest = sorted((at for at in known if known[at] < NEAR), key=lambda at: known[at])[:NEAREST]
    step = (len(places) - 1) / (_count(places) - 1)
    beside = {round(at + part * step) for at in nearest for part in BESIDE}
    return sorted(at for at in beside.difference(first) if 0 <= at < len(places))


def _count(places: Sequence[Place]) -> int:
    return min(len(places) // EVERY_FRAMES, MOST_FRAMES)


def _frame(place: Place) -> int:
    track, row = place
    return track.start + row


class _Stage:
    """Draws and judges some frames of a video."""

    def __init__(
        self, source: Path, plan: Plan, settings: Settings, models: ModelStore, progress: Meter | None
    ) -> None:
        from vidanon.renderer import Renderer
        from vidanon.rendersummary import RenderSummary

        self.plan, self.summary = plan, RenderSummary()
        self.judged: dict[int, Judged] = defaultdict(lambda: ([], []))
        self._source, self._models, self._progress = source, models, progress
        self._workers = settings.runtime.workers
        self._renderer = Renderer(plan, settings, models, self.summary)
        self._recognisers = fetch_recognisers(models)

    def judge(self, places: Sequence[Place]) -> None:
        """Draw and judge further places."""
        from vidanon.stages.decode import Decoder

        wanted: dict[int, list[Track]] = defaultdict(list)
        for track, row in places:
            wanted[track.start + row].append(track)
        boxes = {frame: [t.boxes[frame - t.start] for t in tracks] for frame, tracks in wanted.items()}
        numbers = {(f, tuple(t.boxes[f - t.start])): t.id for f, tracks in wanted.items() for t in tracks}
        with Decoder(self._source) as video, worker_pool(self._workers) as pool, one_thread_each():
            drawn = self._drawn(pool, video.part(wanted), wanted)
            pairs, hidden = judge_frames(drawn, self._models, boxes, self._workers, self._recognisers)
        for pair in pairs:
            self.judged[numbers[pair.frame, tuple(pair.box)]][0].append(pair)
        for face in hidden:
            self.judged[numbers[face.frame, tuple(face.box)]][1].append(face)

    def _drawn(
        self, pool: ThreadPoolExecutor, frames: Iterable[Frame], wanted: Mapping[int, list[Track]]
    ) -> Iterator[Frames]:
        """Yield each frame with what was made of it; count what was drawn."""
        total = self.summary.frames + len(wanted)

        def draw(frame: Frame) -> tuple[Frame, Frame, dict[int, Face]]:
            image, faces = self._renderer.alone(frame, {track.id for track in wanted[frame.index]})
            return frame, replace(frame, image=image), faces

        for before, after, faces in ordered_map(pool, draw, frames, AHEAD_FRAMES):
            self.summary.count(before.index, *outcome(faces))
            if self._progress is not None:
                self._progress(self.summary.frames, total)
            yield before, after, None

    def by_track(self) -> tuple[TrackAudit, ...]:
        """Return what was judged of every track."""
        rate = float(self.plan.info.average_rate)
        times_s = [frame / rate for frame in range(self.plan.frames)]
        return tuple(
            TrackAudit(
                track=track.id,
                person=track.person,
                start_s=times_s[track.start],
                end_s=times_s[track.end - 1],
                frames=len(track),
                obscured=None,
                samples=verdicts(*self.judged[track.id], times_s, self.summary.obscured_at.get(track.id, ())),
                figures={},
            )
            for track in self.plan.tracks
            if track.id in self.judged
        )
