"""Render, audit, and make it again until nobody is recognised or nothing more can be done."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vidanon.audit.judge import audit
from vidanon.audit.preview import prefer_where_it_failed
from vidanon.audit.record import UNCOVERED, Audit
from vidanon.audit.remedy import remedy
from vidanon.stages.workers import release_memory
from vidanon.tally import Memory
from vidanon.types import Plan

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.redraw import Drawn
    from vidanon.renderer import RenderSummary
    from vidanon.settings import Settings

OTHER_FACES = 2
"""So often another face is tried."""
Progress = Callable[[str, int, int], None]
Draw = Callable[
    ["Path", "Plan", "Path", "Settings", "ModelStore", Callable[[int, int], None] | None], "RenderSummary"
]
"""Makes a file from a plan, as :func:`vidanon.renderer.render` does."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The last result and what led to it.

    Attributes:
        plan: what the result was made from.
        summary: what was drawn.
        audit: what was measured; None where the audit is off.
        rounds: how often it was made.
        seconds: time per stage over all rounds, with ``audit``.
    """

    plan: Plan
    summary: RenderSummary
    audit: Audit | None
    rounds: int
    seconds: dict[str, float]


def render_until_safe(
    source: Path,
    plan: Plan,
    target: Path,
    settings: Settings,
    models: ModelStore,
    progress: Progress | None = None,
    draw: Draw | None = None,
) -> Rendered:
    """Write ``target`` and audit it; where it does not pass, change the plan and write it again.

    What the new plan draws as before is kept, see :mod:`vidanon.redraw`, and what shows the same picture as
    before need not be judged again.

    Args:
        source: the video.
        plan: who is where.
        target: the file to write; the caller publishes it.
        settings: all settings; ``audit`` decides how often.
        models: where the networks are.
        progress: called with the name of the pass, frames done, frames in all.
        draw: writes ``target``; default :func:`vidanon.renderer.render`.

    Returns:
        The last result; whether it may be published is ``audit.passed``.

    Raises:
        SettingsError, InputError, ModelsError, DeviceError, OutputError: see :mod:`vidanon.errors`.
    """
    from vidanon.stages.encode import discard

    scratch = target.with_name(f"{target.name}.parts")  # a run that is killed leaves it to the next one
    try:
        return _rounds(source, plan, target, scratch, settings, models, progress, draw)
    finally:
        discard(scratch)


def _rounds(
    source: Path,
    plan: Plan,
    target: Path,
    scratch: Path,
    settings: Settings,
    models: ModelStore,
    progress: Progress | None,
    draw: Draw | None,
) -> Rendered:
    from vidanon.redraw import Drawn, redraw
    from vidanon.renderer import render

    seconds: defaultdict[str, float] = defaultdict(float)
    tried: list[tuple[Plan, Audit]] = []
    memory = Memory()
    before: Drawn | None = None
    for round_number in range(settings.audit.rounds + 1):
        again = f" {round_number + 1}" if round_number else ""
        release_memory()
        watch = _named(progress, f"render{again}")
        if before is None or draw is not None:
            summary = (draw or render)(source, plan, target, settings, models, watch)
        else:
            summary = redraw(source, plan, target, settings, models, watch, before=before, folder=scratch)
        for stage, spent in summary.seconds.items():
            seconds[stage] += spent
        if not settings.audit.enabled:
            return Rendered(plan, summary, None, 1, seconds)
        started = time.monotonic()
        release_memory()
        found = audit(
            source,
            target,
            models,
            settings.runtime.workers,
            plan,
            summary.obscured_at,
            settings.audit.samples,
            _named(progress, f"audit{again}"),
            memory,
        )
        seconds["audit"] += time.monotonic() - started
        result = Rendered(plan, summary, found, round_number + 1, seconds)
        better = None
        if not found.passed and round_number < settings.audit.rounds:
            # Other faces, and then masks: first where it fails, in the end over whole tracks.
            late = round_number >= OTHER_FACES or round_number + 2 >= settings.audit.rounds
            if not late:
                started = time.monotonic()
                plan = prefer_where_it_failed(source, plan, _recognised(found), settings, models)
                seconds["choose"] += time.monotonic() - started
            better = remedy(plan, found, obscure_only=late, earlier=tried)
            tried.append((plan, found))
        if better is None:
            break
        before = _set_aside(Drawn(target, plan, summary), scratch)
        memory.output = before.path
        plan = better
    return result


def _recognised(found: Audit) -> dict[int, list[int]]:
    """Return the frames in which somebody was recognised, in order, by person."""
    frames: dict[int, set[int]] = {}
    for track in found.tracks:
        if track.failing and track.person != UNCOVERED:
            frames.setdefault(track.person, set()).update(sample.frame for sample in track.failing)
    return {person: sorted(some) for person, some in frames.items()}


def _set_aside(drawn: Drawn, scratch: Path) -> Drawn:
    """Keep a refused result, hidden, for what it shares with the next one; the one before goes."""
    from vidanon.stages.encode import discard

    discard(scratch)
    scratch.mkdir(mode=0o700)
    kept = scratch / f"before{drawn.path.suffix}"
    drawn.path.replace(kept)
    return replace(drawn, path=kept)


def _named(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)
