"""Change a plan so that what the audit found does not happen again: another face, or the obscuring mask."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from vidanon.audit.record import UNCOVERED, Audit, Sample, TrackAudit
from vidanon.recognisers import DLIB, EDGEFACE, RECOGNISERS, SFACE, Recogniser, margins_of
from vidanon.stages.landmark import box_iou
from vidanon.stages.track import shot_of
from vidanon.types import BLENDSHAPE_COUNT, LANDMARK_COUNT, Bool, Float, IdentityCode, Origin, Plan, Track

LOCAL_SHARE = 0.6
"""A track in which no more than this share of the samples fails is obscured around them only."""
LEAK_MARGIN_FRAMES = 5
ISLAND_S = 0.5
"""A face that shows for less between two masks only flashes, and is hard to judge."""
GESTURE_S = 1.0
"""Between two moments where it is covered nothing stays before a face for less: a hand would flash."""
NEAR = {SFACE: 0.03, EDGEFACE: 0.04, DLIB: 0.04}
"""What is before a face is also covered where it comes so near the line: the closer look at somebody who was
recognised finds there what the samples before did not, and all would be drawn once more."""
NOISE = dict.fromkeys(RECOGNISERS, 0.005)
"""A score that lies so near the line may be beyond it when the same picture is encoded once more."""
_LINK_FRAMES = 3
_LINK_IOU = 0.2
_SAME_IOU = 0.8


def remedy(
    plan: Plan,
    audit: Audit,
    obscure_only: bool,
    earlier: Sequence[tuple[Plan, Audit]] = (),
    covering: Mapping[int, Track] | None = None,
) -> Plan | None:
    """Return the plan to render next, or None where nothing more can be done.

    A person who is recognised gets the next of the plan's spare faces; when there is none, or when
    ``obscure_only``, the best of the faces tried so far, whose failing moments are obscured; where that was
    not enough, whole tracks. A face that shows or is recognised outside all tracks or beside an obscured one
    is obscured wherever the audit saw it.

    Args:
        plan: what the audited result was made from.
        audit: what was found; it did not pass.
        obscure_only: try no further faces.
        earlier: what was tried before, and what was found then.
        covering: tracks of :func:`bared` to be tried first; who is in them keeps the present face.
    """
    covering = covering or {}
    failing = {result.track: result for result in audit.tracks if result.failing and result.track >= 0}
    left = {
        frame: [*audit.leaks.get(frame, ()), *audit.beside.get(frame, ())]
        for frame in audit.leaks.keys() | audit.beside.keys()
    }
    leaking = _leaking_tracks(plan, left)
    tracks: list[Track] = []
    settled: dict[int, dict[int, TrackAudit]] = {}
    recognised = {t.person for t in plan.tracks if t.id in failing and t.id not in leaking}
    recognised -= {track.person for track in covering.values()}
    recognised &= plan.identities.keys()
    trying = set() if obscure_only else {person for person in recognised if plan.spares.get(person)}
    changed, others = bool(trying), with_next_faces(plan, trying)
    identities = dict(others.identities)
    for person in sorted(recognised - trying):
        identities[person], settled[person] = _best_tried(person, [*earlier, (plan, audit)])
        changed = changed or identities[person].drawn_as != plan.identities[person].drawn_as
    for track in plan.tracks:
        better = covering.get(track.id, track)
        for frame in leaking.get(track.id, ()):
            better = obscured(better, _around(plan, frame, frame))
        if track.id in settled.get(track.person, {}):
            better = _obscured_where_it_fails(better, settled[track.person][track.id])
            better = _without_islands(better, round(ISLAND_S * float(plan.info.average_rate)))
        changed = changed or better is not track
        tracks.append(better)
    unseen = [track for track in _uncovered_tracks(plan, left) if not _repeats(track, plan)]
    if not changed and not unseen:
        return None
    return replace(others, tracks=(*tracks, *unseen), identities=identities)


def _best_tried(
    person: int, tried: Sequence[tuple[Plan, Audit]]
) -> tuple[IdentityCode, dict[int, TrackAudit]]:
    """Return the face with which a person was recognised least often, and by track where that was.

    What was found last counts for the present face: parts of it may be obscured already.
    """
    latest = {plan.identities[person].drawn_as: (plan, audit) for plan, audit in tried}
    results = []
    for plan, audit in latest.values():
        mine = {track.id for track in plan.tracks if track.person == person}
        failing = {result.track: result for result in audit.tracks if result.track in mine and result.failing}
        results.append((sum(len(result.failing) for result in failing.values()), plan, failing))
    _, plan, failing = min(results, key=lambda result: result[0])
    return plan.identities[person], failing


def obscured(track: Track, frames: range) -> Track:
    """Return the track with some frames obscured: a face without a mesh cannot be replaced.

    The track itself is returned where nothing changes.
    """
    rows = np.array([frame - track.start for frame in frames if track.start <= frame < track.end], np.intp)
    if not len(rows) or not np.isfinite(track.crop_from_frame[rows]).any():
        return track
    landmarks, blendshapes, crops = (
        a.copy() for a in (track.landmarks, track.blendshapes, track.crop_from_frame)
    )
    for array in (landmarks, blendshapes, crops):
        array[rows] = np.nan
    return replace(track, landmarks=landmarks, blendshapes=blendshapes, crop_from_frame=crops)


def with_next_faces(plan: Plan, persons: Collection[int]) -> Plan:
    """Return the plan with the next of their spare faces for some of its people, as far as they have any."""
    identities, spares = dict(plan.identities), dict(plan.spares)
    for person in persons:
        if spares.get(person):
            identities[person], *rest = spares[person]
            spares[person] = tuple(rest)
    return replace(plan, identities=identities, spares=spares)


def bared(
    plan: Plan, results: Sequence[TrackAudit], kept_at: Mapping[int, Collection[int]], changed: bool = False
) -> dict[int, Track]:
    """Return tracks with the new face drawn bare where somebody was recognised, by id.

    Where a hand is before the face in both pictures, recognisers compare hand with hand, and where both
    frown, frown with frown. Nobody is among them who is recognised where nothing of the source stays, or not
    any more, or where the hand was left out of account before another face was tried.

    Args:
        plan: what the audited result was made from.
        results: what was found.
        kept_at: frames in which something of the source stayed before a new face or on it, by track.
        changed: another face was tried.
    """
    failing = {result.track: result for result in results if result.failing}
    result: dict[int, Track] = {}
    for person in plan.identities:
        mine = [track for track in plan.tracks if track.person == person and track.id in failing]
        kept = {track.id: set(kept_at.get(track.id, ())) for track in mine}
        samples = [(track.id, sample) for track in mine for sample in failing[track.id].failing]
        if all(sample.frame in kept[key] and (changed or not sample.apart) for key, sample in samples):
            shortest = round(GESTURE_S * float(plan.info.average_rate))
            result |= {t.id: covered(t, _nearly_failing_frames(t, failing[t.id]), shortest) for t in mine}
    return result


def covered(track: Track, frames: Sequence[int], shortest: int = 0) -> Track:
    """Return the track with the new face drawn bare in some frames: over what is in front, without wrinkles.

    It is as well where it would not be for fewer than ``shortest`` frames in between. The track itself is
    returned where it is already, or is obscured.
    """
    drawn = np.asarray(np.isfinite(track.crop_from_frame).all(axis=(1, 2)))
    rows = drawn & np.isin(np.arange(track.start, track.end), frames)
    before = np.zeros(len(track), bool) if track.covered is None else track.covered
    if before[rows].all():
        return track
    rows |= before
    for gap in _short_gaps(rows, shortest):
        rows[gap] = drawn[gap]
    return replace(track, covered=rows)


def _obscured_where_it_fails(track: Track, result: TrackAudit) -> Track:
    """Obscure between the passing samples around every failing one; everywhere where most of them fail."""
    better = track
    failing = [sample for sample in result.samples if sample.recognised_by or _is_near_line(sample, NOISE)]
    for some in _ranges_around(failing, track, result):
        better = obscured(better, some)
    return obscured(track, range(track.start, track.end)) if better is track else better


def _without_islands(track: Track, shortest: int) -> Track:
    """Return the track obscured also where it shows for fewer frames between two masks."""
    hidden = np.asarray(~np.isfinite(track.crop_from_frame).all(axis=(1, 2)))
    for gap in _short_gaps(hidden, shortest):
        track = obscured(track, range(track.start + gap.start, track.start + gap.stop))
    return track


def _short_gaps(rows: Bool, shortest: int) -> list[slice]:
    """Return what lies between two rows that are set, where that is less than so many rows."""
    both = pairwise(np.flatnonzero(rows).tolist())
    return [slice(first + 1, last) for first, last in both if 1 < last - first <= shortest]


def _nearly_failing_frames(track: Track, result: TrackAudit) -> list[int]:
    """Return the frames around all samples that fail or come near it."""
    near = [sample for sample in result.samples if sample.recognised_by or _is_near_line(sample, NEAR)]
    return [frame for some in _ranges_around(near, track, result) for frame in some]


def _is_near_line(sample: Sample, near: Mapping[Recogniser, float]) -> bool:
    return sample.shown and any(margin < near[r] for r, margin in margins_of(sample.scores).items())


def _ranges_around(samples: Sequence[Sample], track: Track, result: TrackAudit) -> list[range]:
    """Return where somebody may be recognised: around some samples; everywhere if most of all fail."""
    if len(result.failing) > LOCAL_SHARE * len(result.samples):
        return [range(track.start, track.end)]
    return [_up_to_passing(sample.frame, result, track) for sample in samples]


def _up_to_passing(frame: int, result: TrackAudit, track: Track) -> range:
    """Return what lies between the passing samples on both sides of a frame, and a margin at least."""
    passing = [sample.frame for sample in result.samples if not sample.recognised_by]
    start = max((other + 1 for other in passing if other < frame), default=track.start)
    end = min((other for other in passing if other > frame), default=track.end)
    # Where the samples lie close together, a mask of a few frames would only flash.
    return range(min(start, frame - LEAK_MARGIN_FRAMES), max(end, frame + LEAK_MARGIN_FRAMES + 1))


def _leaking_tracks(plan: Plan, leaks: dict[int, list[Float]]) -> dict[int, list[int]]:
    """Return the frames in which an original face is left in the place of a track, by track.

    Where the track is obscured already, what shows beside it is another face, or the track's box is off: it
    needs a box of its own.
    """
    found: dict[int, list[int]] = {}
    for track in plan.tracks:
        frames = [
            frame
            for frame, boxes in leaks.items()
            if track.start <= frame < track.end
            and np.isfinite(track.crop_from_frame[frame - track.start]).all()
            and any(box_iou(track.boxes[frame - track.start], box) > _LINK_IOU for box in boxes)
        ]
        if frames:
            found[track.id] = frames
    return found


def _uncovered_tracks(plan: Plan, left: dict[int, list[Float]]) -> list[Track]:
    """Return new tracks, to be obscured, for the faces that were left and that no track covers."""
    runs: list[dict[int, Float]] = []
    for frame, boxes in sorted(left.items()):
        for box in boxes:
            if not _leaking_tracks(plan, {frame: [box]}):
                _extend(runs, frame, box, plan)
    first = max((track.id for track in plan.tracks), default=-1) + 1
    return [_blank_track(first + number, run, plan) for number, run in enumerate(runs)]


def _repeats(track: Track, plan: Plan) -> bool:
    """Say whether the plan obscures this very place already, so that doing it again changes nothing."""
    return any(
        other.start <= track.start
        and track.end <= other.end
        and not np.isfinite(other.crop_from_frame).any()
        and all(
            box_iou(box, other.boxes[track.start + row - other.start]) > _SAME_IOU
            for row, box in enumerate(track.boxes)
        )
        for other in plan.tracks
    )


def _around(plan: Plan, first: int, last: int) -> range:
    """Return some frames with a margin on both sides, within their shot."""
    shot = shot_of(first, plan.cuts, plan.frames)
    return range(max(first - LEAK_MARGIN_FRAMES, shot.start), min(last + 1 + LEAK_MARGIN_FRAMES, shot.stop))


def _extend(runs: list[dict[int, Float]], frame: int, box: Float, plan: Plan) -> None:
    for run in runs:
        last = max(run)
        one_shot = frame in shot_of(last, plan.cuts, plan.frames)
        if one_shot and last < frame <= last + _LINK_FRAMES and box_iou(run[last], box) > _LINK_IOU:
            run[frame] = box
            return
    runs.append({frame: box})


def _blank_track(number: int, run: dict[int, Float], plan: Plan) -> Track:
    """Make a track without a mesh out of the boxes of some frames, a little longer at both ends."""
    known = np.array(sorted(run))
    corners = np.stack([run[frame] for frame in known])
    frames = np.array(_around(plan, min(run), max(run)))
    boxes = np.stack([np.interp(frames, known, corners[:, i]) for i in range(4)], axis=1).astype(np.float32)
    count = len(frames)
    return Track(
        id=number,
        person=UNCOVERED,
        start=int(frames[0]),
        boxes=boxes,
        scores=np.zeros(count, np.float32),
        origin=np.full(count, Origin.EXTENDED, np.uint8),
        landmarks=np.full((count, LANDMARK_COUNT, 2), np.nan, np.float32),
        blendshapes=np.full((count, BLENDSHAPE_COUNT), np.nan, np.float32),
        crop_from_frame=np.full((count, 2, 3), np.nan, np.float32),
    )
