"""Draw a span of a video, and a changed plan where it changed only.

What an encoded result shows of the frames that a new plan draws as before is kept, packet by packet, from one
key picture to the next; the groups in between are drawn and encoded anew, and all is joined.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vidanon.planfile import require_source
from vidanon.progress import Meter
from vidanon.renderer import CONTEXT_FRAMES, Renderer, render
from vidanon.rendersummary import RenderSummary
from vidanon.stages.synthesize import exit_for_face
from vidanon.types import Float, Plan, Track

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import EncodeSettings, Settings

KeyPictures = Sequence[tuple[int, int]]
"""Index and time stamp each, see :func:`vidanon.stages.keys.key_pictures`."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A result that exists.

    Attributes:
        path: the file.
        plan: what it was made from.
        summary: what was drawn.
    """

    path: Path
    plan: Plan
    summary: RenderSummary


@dataclass(frozen=True, slots=True)
class _Run:
    """Successive frames of an earlier result that stay or go.

    Attributes:
        span: indices; begins with a key picture.
        stays: whether nothing in it is drawn differently.
        first, stop: time stamps of the first picture, and of the first one after the last (None: the end).
    """

    span: range
    stays: bool
    first: int
    stop: int | None


def context(span: range, frames: int) -> range:
    """Return the frames that decide how those of a span are drawn."""
    return range(max(0, span.start - CONTEXT_FRAMES), min(frames, span.stop + CONTEXT_FRAMES))


def start_before(span: range, frames: int, starts: KeyPictures) -> tuple[int, int] | None:
    """Return the last key picture from which all frames that a span needs can be decoded."""
    place = bisect_right(starts, context(span, frames).start, key=lambda start: start[0])
    return starts[place - 1] if place else None


def write_span(
    renderer: Renderer,
    source: Path,
    plan: Plan,
    span: range,
    start: tuple[int, int] | None,
    target: Path,
    settings: EncodeSettings,
    progress: Meter | None = None,
) -> RenderSummary:
    """Draw some frames into a file of their own, without sound.

    Args:
        renderer: for the plan.
        source: the video.
        plan: what is drawn.
        span: indices of the frames.
        start: where to begin decoding, see :meth:`vidanon.stages.decode.Decoder.part`.
        target: the file to write.
        settings: of the encoder.
        progress: called with (frames done, frames of the span).

    Raises:
        SettingsError, InputError, OutputError: see :func:`vidanon.renderer.render`.
    """
    from vidanon.stages.decode import Decoder
    from vidanon.stages.encode import Encoder

    with Decoder(source) as decoder:
        require_source(plan, decoder.info)
        frames = decoder.part(context(span, plan.frames), start)
        with Encoder(source, decoder.info, target, settings, copies=False) as encoder:
            summary = renderer.counting_anew().write(frames, encoder, span, progress)
    summary.notes = tuple(encoder.notes)
    return summary


def redraw(
    source: Path,
    plan: Plan,
    target: Path,
    settings: Settings,
    models: ModelStore,
    progress: Meter | None = None,
    *,
    before: Drawn,
    folder: Path,
) -> RenderSummary:
    """Do what :func:`vidanon.renderer.render` does, but keep of an earlier result what did not change.

    Args:
        source: see there.
        plan: see there.
        target: see there.
        settings: see there; the same as for the earlier result.
        models: see there.
        progress: called with (frames done, frames to be drawn).
        before: the earlier result, of the same source.
        folder: exists; the spans that are drawn anew are written there.

    Raises:
        VidanonError: as there.
    """
    from vidanon.stages.decode import probe
    from vidanon.stages.join import Joiner, Piece
    from vidanon.stages.keys import key_pictures

    keys = [] if before.path.is_dir() else key_pictures(before.path, plan.frames)
    runs = list(_runs(keys, changed_frames(before.plan, plan, settings.render.exit_px), plan.frames))
    if not any(run.stays for run in runs):
        return render(source, plan, target, settings, models, progress)
    late = _lateness(before.path, keys, source)
    renderer = Renderer(plan, settings, models, RenderSummary())
    starts, suffix = key_pictures(source, plan.frames), Piece.suffix_for(target)
    pieces: list[Piece] = []
    anew: list[int] = []
    parts: list[RenderSummary] = []
    total = sum(len(run.span) for run in runs if not run.stays)
    for run in runs:
        if run.stays:
            pieces.append(Piece(before.path, run.first, run.stop, late))
            continue
        start, path = start_before(run.span, plan.frames, starts), folder / f"{run.span.start}{suffix}"
        watch = None if progress is None else _further(progress, len(anew), total)
        parts.append(write_span(renderer, source, plan, run.span, start, path, settings.encode, watch))
        pieces.append(Piece(path))
        anew += run.span
    joiner = Joiner(source, probe(source), target, settings.encode, pieces)
    with joiner:
        joiner.join()
    return _merged(plan, before.summary, parts, set(anew), joiner.notes)


def drawn_from(track: Track) -> tuple[Float, ...]:
    """Return what of a track decides, frame by frame, how it is drawn; so do its size and its new face."""
    covered = np.zeros(len(track), np.float32) if track.covered is None else track.covered.astype(np.float32)
    return track.boxes, track.landmarks, track.blendshapes, track.crop_from_frame, covered


def changed_frames(before: Plan, after: Plan, exit_px: int = 0) -> set[int]:
    """Return the frames that two plans of one video draw differently.

    Args:
        before: one plan.
        after: the other.
        exit_px: the size of generated faces, or 0: as each face needs it.
    """
    old, new = ({track.id: track for track in plan.tracks} for plan in (before, after))
    changed: set[int] = set()
    for number in old.keys() | new.keys():
        both = [tracks[number] for tracks in (old, new) if number in tracks]
        if len(both) == 2 and _draws_same_face(before, both[0], after, both[1], exit_px):
            changed.update((both[0].start + np.flatnonzero(_rows_differ(*both))).tolist())
        else:
            changed.update(frame for track in both for frame in range(track.start, track.end))
    reach = range(-CONTEXT_FRAMES, CONTEXT_FRAMES + 1)
    return {frame + step for frame in changed for step in reach if 0 <= frame + step < after.frames}


def _draws_same_face(before: Plan, one: Track, after: Plan, other: Track, exit_px: int) -> bool:
    """Say whether two states of a track differ, if at all, in single frames only."""
    if (one.start, one.end, one.person) != (other.start, other.end, other.person):
        return False
    if len({exit_for_face(track.crop_from_frame, exit_px) for track in (one, other)}) > 1:
        return False
    old, new = (plan.identities.get(one.person) for plan in (before, after))
    if old is None or new is None:
        return old is new
    return old.drawn_as == new.drawn_as and np.array_equal(old.vector, new.vector)


def _rows_differ(one: Track, other: Track) -> npt.NDArray[np.bool_]:
    """Return for every frame of a track whether two states of it differ, bool (n,)."""
    differ = np.zeros(len(one), bool)
    for pair in zip(drawn_from(one), drawn_from(other), strict=True):
        a, b = (array.reshape(len(one), -1) for array in pair)
        differ |= ~((a == b) | (np.isnan(a) & np.isnan(b))).all(axis=1)
    return differ


def _runs(keys: KeyPictures, changed: set[int], frames: int) -> Iterator[_Run]:
    """Divide an earlier result, at key pictures, into what stays and what is drawn anew."""
    spans = [range(a, b) for a, b in pairwise([*(index for index, _ in keys), frames])]
    stamps: list[int | None] = [*(pts for _, pts in keys), None]
    groups = zip(spans, stamps, stamps[1:], strict=False)
    for stays, group in groupby(groups, key=lambda group: changed.isdisjoint(group[0])):
        run = list(group)
        first = run[0][1]
        assert first is not None  # only the end of the file has no time stamp
        yield _Run(range(run[0][0].start, run[-1][0].stop), stays, first, run[-1][2])


def _lateness(path: Path, keys: KeyPictures, source: Path) -> int:
    """Return by how much the time stamps of a result lie behind the source's, in units of the result."""
    from vidanon.stages.decode import Decoder, probe

    with Decoder(source) as video:
        first = next(iter(video.part(range(1))))
        expected = round(first.pts * video.info.time_base / probe(path).time_base)
    return keys[0][1] - expected


def _further(progress: Meter, done: int, total: int) -> Meter:
    return lambda now, _: progress(done + now, total)


def _merged(
    plan: Plan, before: RenderSummary, parts: Sequence[RenderSummary], anew: set[int], notes: Sequence[str]
) -> RenderSummary:
    """Sum up a result whose frames are those of an earlier one, but for some."""
    total = RenderSummary()
    for kept, known in zip(total.frames_by_track, before.frames_by_track, strict=True):
        kept |= {track: [frame for frame in frames if frame not in anew] for track, frames in known.items()}
    for part in (*parts, RenderSummary(notes=tuple(notes))):
        total.add(part)
    for by_track in total.frames_by_track:
        for frames in by_track.values():
            frames.sort()
    total.frames, total.obscured = plan.frames, sum(map(len, total.obscured_at.values()))
    total.replaced = sum(min(track.end, plan.frames) - track.start for track in plan.tracks) - total.obscured
    return total
