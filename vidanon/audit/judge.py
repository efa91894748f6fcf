"""Audit one encoded result against its source.

Both files are decoded anew and the faces of every frame of the source are found without the plan (how:
:mod:`vidanon.compare`); recognisers look at a bounded number of frames of every track. SFace took part in
choosing and learning the new faces, so it is a weaker witness; EdgeFace and dlib took no part in anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidanon.audit.container import compare_containers
from vidanon.audit.record import UNCOVERED, Audit, Check, Span, TrackAudit, clock
from vidanon.audit.sampling import closer_frames, nearness_of, reach_of, sampled_frames, samples_of
from vidanon.audit.stability import trajectory_correlation
from vidanon.audit.verdict import Judged, identity_checks, is_masked, recognised_in, verdicts
from vidanon.audit.watch import Watcher
from vidanon.behind import judged_apart
from vidanon.compare import MIN_FACE_PX, compare_videos, judge_again
from vidanon.progress import Meter
from vidanon.recognisers import DLIB, fetch_recognisers, recognised_by
from vidanon.stages.landmark import box_iou
from vidanon.tally import (
    FacePair,
    HiddenFace,
    Memory,
    Tally,
    adjacent_similarities,
    expression_correlations,
    mean_of,
)
from vidanon.types import Float, Plan

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

SAMPLE_EVERY_FRAMES = 5
"""Without a plan, and for faces that no track covers, two frames of so many are judged."""
CLOSER_SAMPLES, SUSPECT_SAMPLES = 2, 16
"""So many times the usual number of frames is looked at in addition, at most. Where somebody was recognised
once, that may be every frame of some twenty seconds: with 6, two of 268 were missed (lp_d14)."""
SUSPECT_TIMES = 2
"""Somebody who was recognised once is looked at so many times as often to begin with. In six results of which
every frame was judged 29 failed; the usual number, and those beside what was near, had missed one of them,
twice as many none, in half of all frames."""
NEARLY = 0.01
"""Nearness of what is far from the line, but suspect: enough to look beside it, after all nearer ones."""
_MATCH_IOU = 0.25
_LISTED = 4


def audit(
    source: Path,
    output: Path,
    models: ModelStore,
    workers: int = 2,
    plan: Plan | None = None,
    obscured_at: dict[int, list[int]] | None = None,
    samples: int = 32,
    progress: Meter | None = None,
    memory: Memory | None = None,
) -> Audit:
    """Measure what is left of the people of ``source`` in ``output``.

    Args:
        source: the original.
        output: the encoded result.
        models: where the models are.
        workers: threads.
        plan: what the result was made from; names tracks and bounds the work. None: faces are followed anew.
        obscured_at: frames in which a track was obscured, as the renderer says.
        samples: frames per track that the recognisers look at, a third of them with its neighbour; of long
            tracks more; up to twice as many more where a track comes near the line between two people and
            one. Where somebody was recognised in an earlier result, twice as many to begin with, and up to 16
            times as many more.
        progress: called with (frames done, frames stated).
        memory: of the last audit of the same source, taken over and brought up to date.

    Raises:
        InputError: a file is missing or no video, or the pictures differ in size.
        ModelsError: a model is missing.
    """
    memory = memory or Memory()
    used = fetch_recognisers(models)
    tracks = _Tracks(plan, samples, obscured_at or {}, memory)
    watcher = Watcher()
    tally = compare_videos(source, output, models, tracks.judged, workers, used, watcher, progress, memory)
    leaks = tracks.leaks(tally)
    numbered = tracks.numbered(tally)
    closer = tracks.closer(tally, numbered, obscured_at or {}, memory.suspects)
    further = judge_again(source, output, models, closer, workers, used, memory) if closer else ([], [])
    memory.learn(tally, *further)
    again = tracks.sorted_by_track(*further)
    results = tuple(
        _track_audit(number, faces, again.get(number, ([], [])), tracks, tally.times_s, obscured_at, watcher)
        for number, faces in sorted(numbered.items())
    )
    for result in results if plan else ():
        if result.failing:
            memory.suspects.setdefault(result.track, None)
    notes = () if plan is None else plan.notes
    if DLIB not in used:
        notes += ("dlib's recogniser did not judge: install dlib-bin",)
    container, container_checks = compare_containers(source, output, tally)
    checks = (*container_checks, _coverage(leaks, tally), *identity_checks(results, used))
    found = Audit(
        source=source,
        output=output,
        checks=checks,
        tracks=results,
        leaks=leaks,
        times_s=tally.times_s,
        totals=_totals({number: pairs for number, (pairs, _) in numbered.items()}, results),
        container=container,
        recognisers=tuple(recogniser.name for recogniser in used),
        spans=_spans(plan, obscured_at or {}, leaks, tracks, tally.times_s),
        notes=notes,
        beside=_beside([numbered, again], obscured_at or {}) if plan else {},
    )
    if not found.passed:
        return found
    return replace(found, thumbnails={t: jpeg for t, jpeg in tracks.rename(watcher.thumbnails).items()})


class _Tracks:
    """Which track a source face belongs to, and whether it is to be judged."""

    def __init__(
        self, plan: Plan | None, samples: int, obscured_at: dict[int, list[int]], memory: Memory
    ) -> None:
        self.plan = plan
        self._again = {face.frame for faces in memory.faces.values() for face in faces if _failed(face)}
        self._samples = {UNCOVERED: samples}
        self._samples |= {track.id: samples_of(track, samples) for track in (plan.tracks if plan else ())}
        self._wanted = {
            track.id: sampled_frames(
                track,
                samples * (SUSPECT_TIMES if memory.suspects.get(track.id, ()) is None else 1),
                obscured_at.get(track.id, ()),
            )
            for track in (plan.tracks if plan else ())
        }
        detect = plan.settings.get("detect", {}) if plan else {}
        smallest = detect.get("min_face_px", 0)
        self._min_px = max(MIN_FACE_PX, smallest if isinstance(smallest, int) else 0)
        self._faces: dict[int, int] = {}

    def at(self, frame: int, box: Float) -> int:
        """Return the plan's track with the best overlap, or UNCOVERED."""
        if self.plan is None:
            return UNCOVERED
        near = {
            track.id: box_iou(track.boxes[frame - track.start], box)
            for track in self.plan.tracks
            if track.start <= frame < track.end
        }
        best = max(near, key=lambda key: near[key], default=UNCOVERED)
        return best if near.get(best, 0.0) > _MATCH_IOU else UNCOVERED

    def judged(self, frame: int, box: Float) -> bool:
        """Say whether the recognisers look at a face."""
        track = self.at(frame, box)
        if self._left(frame, box):
            return False
        if track == UNCOVERED:
            return frame % SAMPLE_EVERY_FRAMES < 2
        return frame in self._wanted[track] or frame in self._again

    def _left(self, frame: int, box: Float) -> bool:
        """Say whether a face stays as it is because the user wants it (and no treated face overlaps more)."""
        left = max(
            (
                box_iou(track.boxes[frame - track.start], box)
                for track in (self.plan.left if self.plan else ())
                if track.start <= frame < track.end
            ),
            default=0.0,
        )
        return left > _MATCH_IOU and self.at(frame, box) == UNCOVERED

    def leaks(self, tally: Tally) -> dict[int, list[Float]]:
        """Return the unchanged faces that are large enough to count, by frame."""
        large = {
            frame: [box for box in boxes if box[2] - box[0] >= self._min_px and not self._left(frame, box)]
            for frame, boxes in tally.unchanged.items()
        }
        return {frame: boxes for frame, boxes in sorted(large.items()) if boxes}

    def numbered(self, tally: Tally) -> dict[int, Judged]:
        """Sort what was judged by track; without a plan, faces that follow one another are a track."""
        result = self.sorted_by_track(tally.pairs, tally.hidden)
        for track in self.plan.tracks if self.plan else ():
            result.setdefault(track.id, ([], []))
        for number, (pairs, _) in result.items():
            self._faces |= {pair.face: number for pair in pairs}
        return result

    def sorted_by_track(self, pairs: list[FacePair], hidden: list[HiddenFace]) -> dict[int, Judged]:
        """Sort faces by track; without a plan, by the number of the followed face."""
        result: dict[int, Judged] = defaultdict(lambda: ([], []))
        for pair in pairs:
            result[self.at(pair.frame, pair.box) if self.plan else pair.face][0].append(pair)
        for face in hidden:
            result[self.at(face.frame, face.box) if self.plan else face.face][1].append(face)
        return result

    def closer(
        self,
        tally: Tally,
        numbered: dict[int, Judged],
        obscured_at: dict[int, list[int]],
        suspects: Mapping[int, frozenset[int] | None],
    ) -> dict[int, list[Float]]:
        """Return the faces to be judged beside those that came near the line, boxes (4,) by frame.

        Where somebody was recognised in an earlier result, what shows no face now and no mask either counts
        as near; if that was only behind something, what shows a face in these frames. Without a plan enough
        was judged already.
        """
        wanted: dict[int, list[Float]] = defaultdict(list)
        for number, (judged, hidden) in numbered.items() if self.plan else ():
            pairs = judged_apart(judged)
            masked = set(obscured_at.get(number, ()))
            suspect = suspects.get(number, frozenset())
            reach = reach_of([pair for pair in pairs if not is_masked(pair, masked)])
            nearness = {
                face.frame: _least_nearness(suspect, face.frame) if face.frame not in masked else -np.inf
                for face in hidden
            }
            nearness |= {
                p.frame: -np.inf
                if is_masked(p, masked)
                else max(nearness_of(p, reach), _least_nearness(suspect or frozenset(), p.frame))
                for p in pairs
            }
            budget = self._samples[number] * (SUSPECT_SAMPLES if number in suspects else CLOSER_SAMPLES)
            for frame in closer_frames(nearness, budget):
                wanted[frame] += [
                    box
                    for box in tally.boxes.get(frame, ())
                    if self.at(frame, box) == number and not self._left(frame, box)
                ]
        return {frame: boxes for frame, boxes in wanted.items() if boxes}

    def rename(self, by_face: dict[int, bytes]) -> dict[int, bytes]:
        """Turn numbers of followed faces into numbers of tracks; faces outside the plan are left out."""
        named = {self._faces.get(face, UNCOVERED): jpeg for face, jpeg in by_face.items()}
        named.pop(UNCOVERED, None)
        return named


def _failed(face: FacePair | HiddenFace) -> bool:
    return isinstance(face, FacePair) and bool(recognised_by(face.scores))


def _least_nearness(suspect: frozenset[int] | None, frame: int) -> float:
    """Return how near a face counts at least, given where its track is suspected (None: everywhere)."""
    return NEARLY if suspect is None or frame in suspect else -np.inf


def _track_audit(
    number: int,
    faces: Judged,
    again: Judged,
    tracks: _Tracks,
    times_s: list[float],
    obscured_at: dict[int, list[int]] | None,
    watcher: Watcher,
) -> TrackAudit:
    masked = set((obscured_at or {}).get(number, ()))
    pairs = faces[0]  # figures come from frames that were not picked for what they show
    samples = verdicts([*pairs, *again[0]], [*faces[1], *again[1]], times_s, masked)
    planned = next((t for t in tracks.plan.tracks if t.id == number), None) if tracks.plan else None
    if planned is not None:
        start, end, person = planned.start, planned.end - 1, planned.person
    else:
        start, end, person = samples[0].frame, samples[-1].frame, UNCOVERED
    last = len(times_s) - 1
    levels = [level for face in {pair.face for pair in pairs} for level in watcher.flicker[face]]
    return TrackAudit(
        track=number,
        person=person,
        start_s=times_s[min(start, last)],
        end_s=times_s[min(end, last)],
        frames=end - start + 1,
        obscured=None if obscured_at is None else len(obscured_at.get(number, ())),
        samples=samples,
        figures=_figures(pairs, levels),
    )


def _beside(judged: list[dict[int, Judged]], obscured_at: dict[int, list[int]]) -> dict[int, list[Float]]:
    """Return the boxes of recognised faces that a track should have hidden but missed, by frame."""
    boxes: dict[int, list[Float]] = defaultdict(list)
    for number, (pairs, _) in chain.from_iterable(by_track.items() for by_track in judged):
        masked = set(obscured_at.get(number, ()))
        for pair in pairs:
            if recognised_in(pair, masked) and (number == UNCOVERED or pair.frame in masked):
                boxes[pair.frame].append(pair.box)
    return dict(boxes)


def _figures(pairs: list[FacePair], levels: list[tuple[float, float]]) -> dict[str, float | None]:
    """Return utility and stability of one face."""
    correlations = expression_correlations({0: pairs}) if pairs else {}
    source_flicker, output_flicker = (mean_of([level[i] for level in levels]) for i in (0, 1))
    trajectory = trajectory_correlation(pairs)
    adjacent = adjacent_similarities(pairs)
    return {
        "pose_error_deg": mean_of([pair.pose_error_deg for pair in pairs]),
        "landmark_nme": mean_of([pair.nme for pair in pairs]),
        "landmark_trajectory": None if trajectory is None else round(trajectory, 4),
        "blendshape_mae": mean_of(
            [float(np.abs(p.source.blendshapes - p.output.blendshapes).mean()) for p in pairs]
        ),
        "mouth_opening": correlations.get("jawOpen"),
        "blink": correlations.get("blink"),
        "smile": correlations.get("mouthSmile"),
        "gaze_x": correlations.get("gaze_x"),
        "gaze_y": correlations.get("gaze_y"),
        "adjacent_similarity": mean_of(adjacent),
        "adjacent_spread": round(float(np.std(adjacent)), 4) if adjacent else None,
        "flicker": output_flicker,
        "source_flicker": source_flicker,
    }


def _totals(pairs: dict[int, list[FacePair]], results: tuple[TrackAudit, ...]) -> dict[str, float | None]:
    """Average over tracks by the number of faces judged."""
    names = [name for result in results for name in result.figures]
    totals: dict[str, float | None] = {}
    for name in dict.fromkeys(names):
        known = [(r.figures[name], len(pairs[r.track])) for r in results]
        values = [(value, count) for value, count in known if value is not None and count]
        weight = sum(count for _, count in values)
        totals[name] = round(sum(value * count for value, count in values) / weight, 4) if weight else None
    return totals


def _coverage(leaks: dict[int, list[Float]], tally: Tally) -> Check:
    if not leaks:
        return Check("coverage", True, f"no original face in {len(tally.boxes)} frames with faces")
    moments = ", ".join(clock(tally.times_s[frame]) for frame in list(leaks)[:_LISTED])
    more = ", ..." if len(leaks) > _LISTED else ""
    return Check("coverage", False, f"an original face is left in {len(leaks)} frames (at {moments}{more})")


def _spans(
    plan: Plan | None,
    obscured_at: dict[int, list[int]],
    leaks: dict[int, list[Float]],
    tracks: _Tracks,
    times_s: list[float],
) -> tuple[Span, ...]:
    """Return runs of frames in one state, per track, for the timeline."""
    states: dict[int, dict[int, str]] = defaultdict(dict)
    for track in plan.tracks if plan else ():
        hidden = set(obscured_at.get(track.id, ()))
        for frame in range(track.start, track.end):
            states[track.id][frame] = "obscured" if frame in hidden else "replaced"
    for frame, boxes in leaks.items():
        for box in boxes:
            states[tracks.at(frame, box)][frame] = "leak"
    spans = []
    for track_id, by_frame in sorted(states.items()):
        run: list[int] = []
        for frame in [*sorted(by_frame), -2]:
            if run and (frame != run[-1] + 1 or by_frame[frame] != by_frame[run[0]]):
                begin, end = times_s[run[0]], times_s[min(run[-1] + 1, len(times_s) - 1)]
                spans.append(Span(track_id, begin, end, by_frame[run[0]]))
                run = []
            run.append(frame)
    return tuple(spans)
