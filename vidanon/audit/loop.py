"""Render, audit, and make it again until nobody is recognised or nothing more can be done."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vidanon.audit.judge import audit
from vidanon.audit.preview import prefer_where_it_failed
from vidanon.audit.record import UNCOVERED, Audit, TrackAudit
from vidanon.audit.rehearsal import rehearse
from vidanon.audit.remedy import bared, remedy, with_next_faces
from vidanon.progress import Meter, Progress, meter
from vidanon.recognisers import let_judges_go
from vidanon.stages.synthesize import let_generator_go
from vidanon.stages.workers import release_memory
from vidanon.tally import Memory
from vidanon.types import Plan

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.redraw import Drawn
    from vidanon.rendersummary import RenderSummary
    from vidanon.settings import Settings

OTHER_FACES = 3
"""So often another face is tried, after what stayed of the source was left out."""
SLIGHT, SLIGHT_AGAIN, HELPS = 0.15, 0.05, 0.5
"""Who is recognised in no larger share of the samples, the second once the person was refused in more, keeps
the face, led further away, as long as that takes the share down to this part of it."""
Draw = Callable[["Path", "Plan", "Path", "Settings", "ModelStore", Meter | None], "RenderSummary"]
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
    from vidanon.stages.target import discard

    scratch = target.with_name(f"{target.name}.parts")  # a run that is killed leaves it to the next one
    try:
        return _Rounds(source, target, scratch, settings, models, progress, draw).run(plan)
    finally:
        discard(scratch)


@dataclass(slots=True)
class _Rounds:
    """One file that is made, audited and made again."""

    source: Path
    target: Path
    scratch: Path
    settings: Settings
    models: ModelStore
    progress: Progress | None
    draw: Draw | None
    memory: Memory = field(default_factory=Memory)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    tried: list[tuple[Plan, Audit]] = field(default_factory=list)
    changes: int = 0
    shares: dict[int, float] = field(default_factory=dict)
    before: Drawn | None = None

    def run(self, plan: Plan) -> Rendered:
        """Go on until a result passes or no plan would be better."""
        from vidanon.redraw import Drawn

        for number in range(self.settings.audit.rounds + 1):
            plan = self._rehearsed(plan, number)
            summary = self._made(plan, number)
            if not self.settings.audit.enabled:
                return Rendered(plan, summary, None, 1, self.seconds)
            found = self._audited(plan, summary, number)
            result = Rendered(plan, summary, found, number + 1, self.seconds)
            better = None if found.passed else self._better(plan, summary, found, number)
            if better is None:
                break
            self.before = _set_aside(Drawn(self.target, plan, summary), self.scratch)
            self.memory.output = self.before.path
            plan = better
        return result

    def _rehearsed(self, plan: Plan, number: int) -> Plan:
        """Return the plan with faces that pass in some frames, as far as others may still be tried."""
        if self.tried and _faces(plan) == _faces(self.tried[-1][0]):
            return plan
        while self.settings.audit.enabled and not self._is_late(number):
            started = time.monotonic()
            what = self.source, plan, self.settings, self.models, self._meter("rehearse", number)
            found = rehearse(*what)
            self.seconds["rehearse"] += time.monotonic() - started
            if found is None:
                break
            plan = found.plan
            # Who fails only where something is before the face is left to the audit, which sees how far.
            waiting = {track.person for track in bared(plan, found.tracks, found.summary.kept_at).values()}
            tracks = [track for track in found.tracks if track.person not in waiting]
            failed = _recognised(tracks)
            if not failed:
                break
            self.memory.suspects |= {track.track: None for track in tracks if track.failing}
            before, plan = plan, with_next_faces(self._reordered(plan, tracks, failed), failed)
            self._note(tracks)
            if _faces(plan) == _faces(before):
                break
        return plan

    def _made(self, plan: Plan, number: int) -> RenderSummary:
        from vidanon.redraw import redraw
        from vidanon.renderer import render

        let_judges_go()  # else they would add to the peak of drawing
        release_memory()
        what = self.source, plan, self.target, self.settings, self.models, self._meter("render", number)
        if self.before is None or self.draw is not None:
            summary = (self.draw or render)(*what)
        else:
            summary = redraw(*what, before=self.before, folder=self.scratch)
        for stage, spent in summary.seconds.items():
            self.seconds[stage] += spent
        return summary

    def _audited(self, plan: Plan, summary: RenderSummary, number: int) -> Audit:
        started = time.monotonic()
        let_generator_go()  # else memory would be at its peak in the audit
        release_memory()
        found = audit(
            self.source,
            self.target,
            self.models,
            self.settings.runtime.workers,
            plan,
            summary.obscured_at,
            self.settings.audit.samples,
            self._meter("audit", number),
            self.memory,
        )
        self.seconds["audit"] += time.monotonic() - started
        return found

    def _better(self, plan: Plan, summary: RenderSummary, found: Audit, number: int) -> Plan | None:
        """Return what to try after a result that did not pass: faces drawn bare, other faces, then masks."""
        last = self.settings.audit.rounds
        if number == last:
            return None
        late = self._is_late(number)
        covering = bared(plan, found.tracks, summary.kept_at, self.changes > 0) if number + 1 < last else {}
        waiting = {track.person for track in covering.values()}
        failed = {person: some for person, some in _recognised(found.tracks).items() if person not in waiting}
        self._suspect(plan, summary, covering, failed)
        if failed and not late:
            plan = self._reordered(plan, found.tracks, failed)
        better = remedy(plan, found, obscure_only=late, earlier=self.tried, covering=covering)
        self.tried.append((plan, found))
        self._note(found.tracks)
        return better

    def _is_late(self, number: int) -> bool:
        """Say whether no other faces are tried any more."""
        return self.changes > OTHER_FACES or number + 2 >= self.settings.audit.rounds

    def _reordered(self, plan: Plan, tracks: Sequence[TrackAudit], failed: dict[int, list[int]]) -> Plan:
        """Return the plan with those spare faces first that hide who was recognised, and where."""
        started = time.monotonic()
        slight = {person for person in failed if self._is_slight(plan, tracks, person)}
        plan = prefer_where_it_failed(self.source, plan, failed, self.settings, self.models, slight)
        self.seconds["choose"] += time.monotonic() - started
        return plan

    def _note(self, tracks: Sequence[TrackAudit]) -> None:
        """Remember how often everyone was recognised."""
        self.changes += 1
        self.shares |= {track.person: _share_recognised(tracks, track.person) for track in tracks}

    def _suspect(
        self, plan: Plan, summary: RenderSummary, covering: Container[int], failed: Container[int]
    ) -> None:
        """Have the next audit look only where something of the source stayed at who was recognised there."""
        suspects = self.memory.suspects
        for track in plan.tracks:
            if track.id in covering and (not self.tried or suspects.get(track.id) is not None):
                suspects[track.id] = frozenset(summary.kept_at.get(track.id, ()))
            elif track.id in suspects and track.person in failed:
                suspects[track.id] = None

    def _is_slight(self, plan: Plan, tracks: Sequence[TrackAudit], person: int) -> bool:
        """Say whether somebody was recognised in few frames, and in far fewer than before the last nudge."""
        face, share = plan.identities[person], _share_recognised(tracks, person)
        if face.nudged and share > HELPS * self.shares.get(person, 0.0):
            return False
        return share <= (SLIGHT_AGAIN if face.refused else SLIGHT)

    def _meter(self, name: str, number: int) -> Meter | None:
        """Return what reports the frames of one pass."""
        return meter(self.progress, f"{name} {number + 1}" if number else name)


def _faces(plan: Plan) -> dict[int, Hashable]:
    """Return by person what tells the faces of a plan apart."""
    return {person: code.drawn_as for person, code in plan.identities.items()}


def _recognised(tracks: Sequence[TrackAudit]) -> dict[int, list[int]]:
    """Return the frames in which somebody was recognised, in order, by person."""
    frames: dict[int, set[int]] = {}
    for track in tracks:
        if track.failing and track.person != UNCOVERED:
            frames.setdefault(track.person, set()).update(sample.frame for sample in track.failing)
    return {person: sorted(some) for person, some in frames.items()}


def _share_recognised(tracks: Sequence[TrackAudit], person: int) -> float:
    """Return the share of the samples of somebody in which they were recognised, 0..1."""
    mine = [track for track in tracks if track.person == person]
    return sum(len(track.failing) for track in mine) / max(sum(len(track.samples) for track in mine), 1)


def _set_aside(drawn: Drawn, scratch: Path) -> Drawn:
    """Keep a refused result, hidden, for what it shares with the next one; the one before goes."""
    from vidanon.stages.target import discard

    discard(scratch)
    scratch.mkdir(mode=0o700)
    kept = scratch / f"before{drawn.path.suffix}"
    drawn.path.replace(kept)
    return replace(drawn, path=kept)
