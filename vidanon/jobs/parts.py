"""One long video in parts: drawn independently, each kept until all are there, then joined.

Parts end at shot cuts where there is one in reach. What a part looks like does not depend on where it is
drawn or how many there are at a time, so a run that was interrupted goes on with those that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidanon.jobs.executors import Executor, Report
from vidanon.jobs.manifest import product_digest
from vidanon.leftovers import remove_leftovers
from vidanon.progress import Meter, meter
from vidanon.rendersummary import BY_TRACK, RenderSummary
from vidanon.settings import Settings
from vidanon.types import Plan

if TYPE_CHECKING:
    from vidanon.audit.loop import Draw
    from vidanon.models.registry import ModelStore
    from vidanon.renderer import Renderer

PART_FRAMES = 240
"""Some times as long as two key pictures are apart, so that parts cost hardly any more bits."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a video.

    Attributes:
        first, stop: indices of its first frame, and one past its last.
        start: where to begin decoding, see :meth:`vidanon.stages.decode.Decoder.part`.
        path: the file to write.
    """

    first: int
    stop: int
    start: tuple[int, int] | None
    path: Path

    @property
    def counts(self) -> Path:
        """What was drawn, beside the pictures; written last."""
        return self.path.with_suffix(".json")


def boundaries(frames: int, cuts: Sequence[int], length: int = PART_FRAMES) -> list[range]:
    """Divide a video: at the cut nearest to ``length`` frames, or after so many where no cut is near.

    Args:
        frames: in the video, at least 1.
        cuts: indices of the first frame of every shot but the first, rising.
        length: frames per part, about.

    Returns:
        Consecutive ranges of length/2 to 3/2 length frames; a video shorter than that is one.
    """
    spans, first = [], 0
    while frames - first > length + length // 2:
        near = [cut for cut in cuts if length // 2 <= cut - first <= length + length // 2]
        near = [cut for cut in near if frames - cut >= length // 2]
        stop = min(near, key=lambda cut: abs(cut - first - length), default=first + length)
        spans.append(range(first, stop))
        first = stop
    return [*spans, range(first, frames)]


@dataclass(slots=True)
class PartWork:
    """Draws one part after the other; work for an executor. Networks are loaded once per worker."""

    source: Path
    plan: Plan
    settings: Settings
    models: ModelStore
    _renderer: Renderer | None = field(default=None, repr=False)

    def __call__(self, part: Part, report: Report) -> None:
        """Write a part, and beside it what was drawn."""
        from vidanon.redraw import write_span
        from vidanon.renderer import Renderer
        from vidanon.stages.target import discard, publish, temporary_path

        if self._renderer is None:
            self._renderer = Renderer(self.plan, self.settings, self.models, RenderSummary())
        span, temporary = range(part.first, part.stop), temporary_path(part.path)
        remove_leftovers(part.path)
        try:
            summary = write_span(
                self._renderer,
                self.source,
                self.plan,
                span,
                part.start,
                temporary,
                self.settings.encode,
                meter(report, "render"),
            )
            publish(temporary, part.path)
        finally:
            discard(temporary)
        counts = temporary.with_suffix(".json")
        counts.write_text(json.dumps(_as_dict(summary)))
        publish(counts, part.counts)


def render_in_parts(
    source: Path,
    plan: Plan,
    target: Path,
    settings: Settings,
    models: ModelStore,
    progress: Meter | None = None,
    *,
    executor: Executor,
    folder: Path,
) -> RenderSummary:
    """Do what :func:`vidanon.renderer.render` does, part by part.

    Args:
        source: see there.
        plan: see there.
        target: see there.
        settings: see there.
        models: see there.
        progress: see there.
        executor: draws the parts.
        folder: keeps finished parts; may hold those of an interrupted run. A part whose people, faces or
            settings have changed since is drawn again, the others are not.

    Raises:
        VidanonError: as there.
    """
    from vidanon.redraw import start_before
    from vidanon.renderer import render
    from vidanon.stages.decode import probe
    from vidanon.stages.join import Joiner, Piece
    from vidanon.stages.keys import key_pictures

    spans = boundaries(plan.frames, plan.cuts)
    info = probe(source)
    if len(spans) == 1 or source.is_dir():
        return render(source, plan, target, settings, models, progress)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    suffix = Piece.suffix_for(target)
    starts, product = key_pictures(source, plan.frames), product_digest()
    names = [_digest(span, plan, settings, product) + suffix for span in spans]
    parts = [
        Part(span.start, span.stop, start_before(span, plan.frames, starts), folder / name)
        for span, name in zip(spans, names, strict=True)
    ]
    workers = max(1, settings.runtime.workers // executor.workers)
    settings = replace(settings, runtime=replace(settings.runtime, workers=workers))
    _draw(parts, PartWork(source, plan, settings, models), executor, progress)
    joiner = Joiner(source, info, target, settings.encode, [Piece(part.path) for part in parts])
    with joiner:
        joiner.join()
    return _sum(parts, plan.frames, joiner.notes)


@contextmanager
def in_processes(jobs: int, target: Path) -> Iterator[Draw]:
    """Give a way to draw a video with several processes; finished parts are deleted in the end."""
    from vidanon.jobs.executors import make_executor

    folder = target.with_name(f".{target.name}.{os.getpid()}.parts")
    try:
        yield partial(render_in_parts, executor=make_executor("processes", jobs), folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _draw(parts: Sequence[Part], work: PartWork, executor: Executor, progress: Meter | None) -> None:
    """Draw what is missing; the first failure stops the rest."""
    total = parts[-1].stop
    missing = [part for part in parts if not part.counts.exists()]
    finished = total - sum(part.stop - part.first for part in missing)
    running: dict[int, int] = {}

    def watch(part: Part, name: str, done: int, of: int) -> None:
        running[part.first] = done
        if progress is not None:
            progress(finished + sum(running.values()), total)

    with closing(executor.imap(work, missing, watch)) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
            if outcome.failure is not None:
                raise outcome.failure.error()
            watch(outcome.item, "render", outcome.item.stop - outcome.item.first, total)


def _digest(span: range, plan: Plan, settings: Settings, product: str) -> str:
    """Return a name for a part that changes with all that it depends on, vidanon itself (``product``) too."""
    from vidanon.redraw import context, drawn_from
    from vidanon.stages.synthesize import exit_for_face

    wanted = context(span, plan.frames)
    digest = hashlib.sha256()
    used: dict[str, object] = {"render": asdict(settings.render), "encode": asdict(settings.encode)}
    used |= {"device": settings.runtime.device}
    text = [product, plan.info.fingerprint, span.start, span.stop, plan.frames, used]
    digest.update(json.dumps(text).encode())
    for track in plan.tracks:
        first, stop = max(track.start, wanted.start), min(track.end, wanted.stop)
        if first >= stop:
            continue
        rows = slice(first - track.start, stop - track.start)
        for array in drawn_from(track):
            digest.update(np.ascontiguousarray(array[rows]).tobytes())
        code = plan.identities.get(track.person)  # none: a place that is only ever obscured
        digest.update(b"" if code is None else code.vector.tobytes() + json.dumps(code.drawn_as).encode())
        # The whole track counts in one thing: its size on screen decides the size of the generated face.
        size = exit_for_face(track.crop_from_frame, settings.render.exit_px)
        digest.update(json.dumps([track.id, first, size]).encode())
    return digest.hexdigest()[:32]


def _as_dict(summary: RenderSummary) -> dict[str, object]:
    return {
        "frames": summary.frames,
        "replaced": summary.replaced,
        "obscured": summary.obscured,
        "seconds": summary.seconds,
        **{name: getattr(summary, name) for name in BY_TRACK},
        "notes": summary.notes,
    }


def _sum(parts: Sequence[Part], frames: int, notes: Sequence[str]) -> RenderSummary:
    """Add up what was drawn.

    Raises:
        OutputError: frames are missing.
    """
    from vidanon.errors import OutputError

    total = RenderSummary()
    for part in parts:
        counts = json.loads(part.counts.read_text())
        for name in BY_TRACK:  # numbers of tracks are text in JSON
            counts[name] = {int(track): indices for track, indices in counts[name].items()}
        total.add(RenderSummary(**counts))
    if total.frames != frames:
        raise OutputError(
            f"{parts[0].path.parent}: {total.frames} of {frames} frames; delete it and run again"
        )
    total.add(RenderSummary(notes=tuple(notes)))
    return total
