"""Join the faces of successive frames into tracks and the tracks of one person into persons.

Nothing that was detected is ever dropped and no track needs several frames to start: a face that shows
for one frame is a track of one frame. Afterwards gaps are bridged and both ends are extended, never across
a shot cut; ``origin`` says for every frame what was seen and what was inferred.
"""

from __future__ import annotations

from bisect import bisect
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from vidanon.stages.landmark import FIRM_TILT_DEG, box_iou, mesh_box
from vidanon.types import Face, Float, Origin, UInt8

SAME_MESH_IOU = 0.5
INSIDE_SHARE = 0.8
HAIR = 0.35  # how far the head reaches above the mesh, heights of the mesh
HEAD_SHARE = 0.5
DOUBTFUL_SCORE = 0.55  # below, a detector also takes neck, collar and high hair for faces
DOUBTFUL_MESH_IOU = 0.3
DOUBTFUL_HAIR, NECK = 0.6, 0.35  # as HAIR
MIN_AFFINITY = 0.25  # see _affinity
REACH = 0.7  # how far a face may jump, in sides of its box
REACH_PER_LOST_FRAME = 0.05
VELOCITY_MEMORY = 0.6  # share of the old velocity kept per frame
SAME_PERSON_COSINE = 0.5  # SFace's own threshold is .363; above, two people never were one here
THUMBNAIL_PX = 64
CUT_BLUR_PX = 1.5
CUT_CORRELATION = 0.6  # cuts measured -.01 to .34, hand-held motion .77 and more
PHOTO_CORRELATION = 0.85  # photographs of one person in one pose are as alike as hand-held frames
CUT_DIFFERENCE = 8.0  # grey levels
CUT_OUTLIER = 3.0  # times the usual difference between frames
LEAST_IN_VIEW = 0.5  # of an extended box
BORDER, BESIDE = 0.2, 0.3  # how near to a border a box touches it, and how far two overlap along it; shares
SURE_DETECTIONS = 3
SURE_SCORE = 0.5
"""Whom no detector is ever as sure of may be no person. A flower pot out of focus in lp_s18 was taken for a
face in ten frames, at .40 at most, and a new face was drawn on it."""
LOST_LANDMARKS = np.full((478, 2), np.nan, np.float32)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A face in one frame with what only its pixels tell. Stays in memory.

    Attributes:
        face: the face; ``score`` is 0 where only the landmarker found it.
        skin_lab: float32 (3,), CIE Lab of the skin, or None where it was not sampled.
        look: float32 (256,), see :mod:`vidanon.identity.look`; None where it was not sampled.
        brows: float32 (2,), :func:`vidanon.identity.shade.brow_depths`; None where it was not sampled.
    """

    face: Face
    skin_lab: Float | None = None
    look: Float | None = None
    brows: Float | None = None


@dataclass(slots=True, eq=False)
class Tracklet:
    """The sightings of one face in one shot, by frame index (ascending)."""

    sightings: dict[int, Sighting]
    velocity: Float = field(default_factory=lambda: np.zeros(2, np.float32))

    @property
    def start(self) -> int:
        """Index of the first frame with a sighting."""
        return next(iter(self.sightings))

    @property
    def last(self) -> int:
        """Index of the last frame with a sighting."""
        return next(reversed(self.sightings))

    def detected_last(self) -> int:
        """Index of the last frame in which a detector (not only the landmarker) saw the face."""
        return next(i for i in reversed(self.sightings) if self.sightings[i].face.score > 0)

    def detections(self) -> int:
        """Count the frames in which a detector saw the face."""
        return sum(sighting.face.score > 0 for sighting in self.sightings.values())

    def is_sure(self) -> bool:
        """Say whether a detector was once sure of the face."""
        return any(sighting.face.score >= SURE_SCORE for sighting in self.sightings.values())

    def may_be_recovered(self) -> bool:
        """Say whether the landmarker alone may go on: not for longer than the detectors saw the face before.

        It also finds a mesh in folds of cloth, and would draw a single false alarm out to half a second.
        """
        return len(self.sightings) < 2 * self.detections()

    def expected(self, index: int) -> Float:
        """Return where the box should be in frame ``index`` (after the last sighting)."""
        shift = self.velocity * (index - self.last)
        return (self.sightings[self.last].face.box + np.tile(shift, 2)).astype(np.float32)

    def add(self, index: int, sighting: Sighting) -> None:
        """Append a sighting."""
        old = self.sightings[self.last].face.box
        step = (sighting.face.box - old).reshape(2, 2).mean(axis=0) / (index - self.last)
        self.velocity = VELOCITY_MEMORY * self.velocity + (1 - VELOCITY_MEMORY) * step
        self.sightings[index] = sighting


def drop_duplicates(faces: list[Face]) -> list[Face]:
    """Keep one of several boxes on one face: same mesh, or a part of a face whose mesh is known.

    Args:
        faces: best first, as the detector gives them.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: face.landmarks is None):
        if not any(_duplicate(face, other) for other in kept if other.landmarks is not None):
            kept.append(face)
    return kept


def _duplicate(face: Face, other: Face) -> bool:
    assert other.landmarks is not None
    doubtful = face.score < min(DOUBTFUL_SCORE, other.score)
    mesh = mesh_box(other.landmarks)
    if face.landmarks is not None:
        limit = DOUBTFUL_MESH_IOU if doubtful else SAME_MESH_IOU
        same = box_iou(mesh_box(face.landmarks), mesh) > limit
        return same or (doubtful and on_part_of_turned(face.box, other.box, other.tilt))
    if _share_inside(face.box, other.box) > INSIDE_SHARE:
        return True
    # Detectors also take hair for a face, right above the face that it belongs to, and the neck right below.
    height = mesh[3] - mesh[1]
    above, below = (DOUBTFUL_HAIR, NECK) if doubtful else (HAIR, 0.0)
    head = mesh + np.array([0, -above * height, 0, below * height], np.float32)
    centre = (face.box[:2] + face.box[2:]) / 2
    inside = bool((centre >= head[:2]).all() and (centre <= [mesh[2], mesh[3]]).all())
    return inside and _share_inside(face.box, head) > HEAD_SHARE


def on_part_of_turned(box: Float, other: Float, tilt: float) -> bool:
    """Say whether a box lies within that of a larger face that is turned in the picture by ``tilt``, radians.

    In a face that is upside down, detectors see a second, smaller one, whose mesh fits nobody.
    """
    return bool(abs(np.degrees(tilt)) > FIRM_TILT_DEG and _share_inside(box, other) > INSIDE_SHARE)


def _share_inside(box: Float, other: Float) -> float:
    """Return the share of a box's area that lies in another."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    return float(np.prod(np.maximum(sides, 0))) / max(float(np.prod(box[2:] - box[:2])), 1e-6)


def _affinity(expected: Float, box: Float, lost_frames: int) -> float:
    """Return 0..2: overlap plus closeness, 0 where the step or the change of size is too large."""
    sides = np.sqrt([max(float(np.prod(b[2:] - b[:2])), 1.0) for b in (expected, box)])
    distance = float(np.hypot(*((expected - box).reshape(2, 2).mean(axis=0)))) / float(sides.mean())
    reach = REACH + REACH_PER_LOST_FRAME * lost_frames
    if distance > reach or sides.max() > 2 * sides.min():
        return 0.0
    return box_iou(expected, box) + 1 - distance / reach


class Tracker:
    """Joins faces frame by frame.

    Args:
        max_gap: longest gap in frames that a track may bridge.
    """

    def __init__(self, max_gap: int) -> None:
        self._max_gap = max_gap
        self._open: list[Tracklet] = []
        self._closed: list[Tracklet] = []

    def add(self, index: int, sightings: list[Sighting], cut: bool) -> list[Tracklet]:
        """Join the faces of frame ``index``; frames come in order.

        Args:
            index: the frame.
            sightings: all faces of the frame.
            cut: whether a new shot starts with this frame.

        Returns:
            The open tracks that have no face in this frame; give :meth:`Tracklet.add` one if it is found.
        """
        for track in list(self._open):
            if cut or index - track.detected_last() - 1 > self._max_gap:
                self._open.remove(track)
                self._closed.append(track)
        affinity = np.array(
            [
                [_affinity(t.expected(index), s.face.box, index - t.last - 1) for s in sightings]
                for t in self._open
            ],
            np.float32,
        ).reshape(len(self._open), len(sightings))
        rows, columns = linear_sum_assignment(affinity, maximize=True)
        pairs = [(r, c) for r, c in zip(rows, columns, strict=True) if affinity[r, c] >= MIN_AFFINITY]
        for row, column in pairs:
            self._open[row].add(index, sightings[column])
        matched_rows, matched_columns = {r for r, _ in pairs}, {c for _, c in pairs}
        missed = [track for row, track in enumerate(self._open) if row not in matched_rows]
        self._open += [Tracklet({index: s}) for c, s in enumerate(sightings) if c not in matched_columns]
        return missed

    def finish(self) -> list[Tracklet]:
        """Return all tracks, by first frame."""
        return sorted(self._closed + self._open, key=lambda track: track.start)


class CutFinder:
    """Shot cuts from thumbnails: the layout of light is another one, and it changed far more than usual.

    Correlation does not react to fades and exposure; the difference keeps noise of dark frames out.
    PySceneDetect 0.7.2 did no better on the clips tried here, and it wants opencv-python, which overwrites
    the files of the opencv-contrib-python that mediapipe brings.
    """

    def __init__(self, photographs: bool = False) -> None:
        """Begin.

        Args:
            photographs: the frames are single pictures, of which each may show something else.
        """
        self._limit = PHOTO_CORRELATION if photographs else CUT_CORRELATION
        self._previous: Float | None = None
        self._recent: deque[float] = deque(maxlen=12)

    def add(self, thumbnail: UInt8) -> bool:
        """Take the next frame's :func:`thumbnail`; return whether a new shot starts with it."""
        grey = gaussian_filter(thumbnail.astype(np.float32).mean(axis=2), CUT_BLUR_PX)
        previous, self._previous = self._previous, grey
        if previous is None:
            return False
        difference = float(np.abs(grey - previous).mean())
        usual = median(self._recent) if self._recent else 0.0
        spread = max(float(grey.std() * previous.std()), 1e-6)
        correlation = float(((grey - grey.mean()) * (previous - previous.mean())).mean()) / spread
        cut = correlation < self._limit and difference > max(CUT_DIFFERENCE, CUT_OUTLIER * usual)
        if not cut:
            self._recent.append(difference)  # many cuts in a row must not pass for motion
        return cut


def shot_of(frame: int, cuts: Sequence[int], frames: int) -> range:
    """Return the frames of the shot that a frame lies in.

    Args:
        frame: index.
        cuts: first frames of all shots but the first, rising.
        frames: of the video.
    """
    shot = bisect(cuts, frame)
    return range(cuts[shot - 1] if shot else 0, cuts[shot] if shot < len(cuts) else frames)


def thumbnail(image: UInt8) -> UInt8:
    """Return a 64 x 64 picture of a frame for :class:`CutFinder`."""
    import cv2

    small = cv2.resize(image, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


@dataclass(frozen=True, slots=True)
class DenseTrack:
    """A track with a box in every frame of its extended span; fields as in :class:`vidanon.types.Track`."""

    start: int
    boxes: Float
    scores: Float
    origin: UInt8
    landmarks: Float
    blendshapes: Float


def waits_at_border(tracks: Sequence[Tracklet], longest: int, size: tuple[int, int]) -> list[int]:
    """Return by track in how many frames after it somebody is hidden by a border of the frame, 0 for none.

    That is, until another track begins at the same place of the same border. Tracks that may be false alarms,
    since detectors saw them in a frame or two, neither wait nor are waited for.

    Args:
        tracks: of a video.
        longest: so many frames are waited at most.
        size: width and height of the frames, pixels.
    """
    waits = [0] * len(tracks)
    sure = [number for number, track in enumerate(tracks) if track.detections() >= SURE_DETECTIONS]
    starts = [(tracks[n].start, tracks[n].sightings[tracks[n].start].face.box) for n in sure]
    for number in sure:
        last = tracks[number].last
        end = tracks[number].sightings[last].face.box
        gaps = [
            start - last - 1
            for start, box in starts
            if 0 < start - last - 1 <= longest and _at_same_border(end, box, size)
        ]
        waits[number] = min(gaps, default=0)
    return waits


def _at_same_border(one: Float, other: Float, size: tuple[int, int]) -> bool:
    """Say whether two boxes touch the same border of the frame beside each other."""
    for axis in range(2):
        along = 1 - axis
        shared = min(one[along + 2], other[along + 2]) - max(one[along], other[along])
        shorter = min(one[along + 2] - one[along], other[along + 2] - other[along])
        margin = BORDER * min(one[axis + 2] - one[axis], other[axis + 2] - other[axis])
        low = max(one[axis], other[axis]) <= margin
        high = min(one[axis + 2], other[axis + 2]) >= size[axis] - margin
        if (low or high) and shared >= BESIDE * shorter:
            return True
    return False


def densify(
    track: Tracklet, extend: int, first: int, stop: int, size: tuple[int, int], wait: int = 0
) -> DenseTrack:
    """Bridge the gaps of a track and extend its ends.

    A track is extended by little more frames than the detectors saw it in, so that a single false alarm does
    not blur a third of a second.

    Args:
        track: the sightings.
        extend: frames to add at both ends.
        first: index of the first frame of the shot.
        stop: index one past the last frame of the shot.
        size: width and height of the frames, pixels.
        wait: at least so many frames are added at the end, see :func:`waits_at_border`.
    """
    extend = min(extend, 1 + track.detections())
    start, end = max(first, track.start - extend), min(stop, track.last + 1 + max(extend, wait))
    frames = np.arange(start, end)
    seen = np.array(list(track.sightings))
    seen_boxes = np.stack([s.face.box for s in track.sightings.values()])
    boxes = np.stack([np.interp(frames, seen, seen_boxes[:, k]) for k in range(4)], axis=1)
    for inside, edge, outside in (
        (seen[:5], seen[0], frames < seen[0]),
        (seen[-5:], seen[-1], frames > seen[-1]),
    ):
        span = max(int(inside[-1] - inside[0]), 1)
        step = (
            (seen_boxes[seen == inside[-1]][0] - seen_boxes[seen == inside[0]][0]).reshape(2, 2).mean(axis=0)
        )
        boxes[outside] += np.outer(frames[outside] - edge, np.tile(step / span, 2))
        boxes[outside] = _hold_in_view(boxes[outside], boxes[frames == edge][0], size)
    scores = np.zeros(len(frames), np.float32)
    landmarks = np.full((len(frames), *LOST_LANDMARKS.shape), np.nan, np.float32)
    blendshapes = np.full((len(frames), 52), np.nan, np.float32)
    for index, sighting in track.sightings.items():
        scores[index - start] = sighting.face.score
        if sighting.face.landmarks is not None and sighting.face.blendshapes is not None:
            landmarks[index - start] = sighting.face.landmarks
            blendshapes[index - start] = sighting.face.blendshapes
    return DenseTrack(start, boxes.astype(np.float32), scores, _origin(scores), landmarks, blendshapes)


def _hold_in_view(boxes: Float, seen: Float, size: tuple[int, int]) -> Float:
    """Move boxes back that have moved out of the frame further than a face was last seen.

    Who moves towards the border is lost there, since half a face is hard to find, but may stay: in
    hamilton_short a nose and brow stood at the border for five frames while the box had gone on.
    """
    boxes = boxes.copy()
    for axis in range(2):
        low, high = boxes[:, axis], boxes[:, axis + 2]
        visible = min(seen[axis + 2], size[axis]) - max(seen[axis], 0)
        least = min(LEAST_IN_VIEW, max(visible / max(seen[axis + 2] - seen[axis], 1e-6), 0)) * (high - low)
        back = np.maximum(least - high, 0) - np.maximum(low + least - size[axis], 0)
        boxes[:, [axis, axis + 2]] += back[:, None]
    return boxes


def _origin(scores: Float) -> UInt8:
    (detected,) = np.nonzero(scores > 0)
    origin = np.full(len(scores), Origin.EXTENDED, np.uint8)
    origin[detected[0] : detected[-1]] = Origin.BRIDGED
    origin[detected] = Origin.DETECTED
    return origin


def link(embeddings: list[Float | None], spans: list[tuple[int, int]]) -> list[int]:
    """Give the same number to tracks that show the same person.

    Greedy: the two most alike groups are joined as long as the cosine of their mean embeddings is at least
    ``SAME_PERSON_COSINE`` and no two of their tracks overlap in time.

    Args:
        embeddings: per track float32 (128,) unit length, or None; a track without stays alone.
        spans: per track the first and the last frame in which it was seen.

    Returns:
        Person per track, numbered from 0 by first appearance in the list.
    """
    groups = {i: [i] for i in range(len(spans))}
    means = {i: np.array(e) for i, e in enumerate(embeddings) if e is not None}
    refused: set[tuple[int, int]] = set()
    while pair := _most_alike(means, refused):
        a, b = pair
        if any(_overlap(spans[i], spans[j]) for i in groups[a] for j in groups[b]):
            refused.add(pair)
            continue
        total = means[a] * len(groups[a]) + means.pop(b) * len(groups[b])
        means[a] = total / max(float(np.linalg.norm(total)), 1e-9)
        groups[a] += groups.pop(b)
    group_of = {i: key for key, members in groups.items() for i in members}
    number = {key: k for k, key in enumerate(sorted(groups, key=lambda key: min(groups[key])))}
    return [number[group_of[i]] for i in range(len(spans))]


def _most_alike(means: dict[int, Float], refused: set[tuple[int, int]]) -> tuple[int, int] | None:
    keys = sorted(means)
    if len(keys) < 2:
        return None
    matrix = np.stack([means[k] for k in keys])
    cosine: npt.NDArray[np.float32] = np.triu(matrix @ matrix.T, 1)
    for a, b in refused:
        if a in means and b in means:
            cosine[keys.index(a), keys.index(b)] = 0
    row, column = np.unravel_index(int(cosine.argmax()), cosine.shape)
    if cosine[row, column] < SAME_PERSON_COSINE:
        return None
    return keys[int(row)], keys[int(column)]


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]
