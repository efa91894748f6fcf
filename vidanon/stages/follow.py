"""Look for faces with every means in some frames, and only follow known faces in the frames between.

Where two looks a few frames apart show the same faces, each with a mesh, the frames between them are looked
at by the mesh network at the place where each face must be, and by one quick look for anything new. If a face
is not found there, or something new is, the frame is looked at with every means after all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np

from vidanon.stages.landmark import box_iou
from vidanon.stages.track import drop_duplicates, thumbnail
from vidanon.types import Face, Float, Frame, UInt8

Detect = Callable[..., list[Face]]


class Landmark(Protocol):
    """Finds meshes and expressions, see :class:`vidanon.stages.landmark.Landmarker`."""

    def __call__(
        self, image: UInt8, boxes: list[Float], tilts: list[float]
    ) -> list[tuple[Float, Float] | None]:
        """Look in boxes, as detectors give them."""

    def around(self, image: UInt8, landmarks: Float) -> tuple[Float, Float] | None:
        """Look where a mesh is expected."""


Item = TypeVar("Item")
Seen = tuple[Frame, list[Face], UInt8]
"""A frame, its faces and its thumbnail (see :func:`vidanon.stages.track.thumbnail`)."""

SAME_FACE_IOU = 0.4  # of a face in two looks; a face that moves faster is not followed
NEW_FACE_IOU = 0.1  # a quick look's box that overlaps every followed face by less is somebody new
TURNED_EVERY = 12  # frames between two looks for turned faces; their meshes are followed in between


@dataclass(frozen=True, slots=True)
class Group(Generic[Item]):
    """Some consecutive frames (or pairs of frames), and the faces of the first of them."""

    frames: list[Item]
    faces: list[Face]


def in_groups(frames: Iterable[Item], size: int, first: int = 0) -> Iterator[list[Item]]:
    """Cut a stream of frames into groups of ``size``; the last may be shorter.

    Args:
        frames: the stream.
        size: of a group.
        first: size of the first group, where it is another.
    """
    group: list[Item] = []
    wanted = first or size
    for frame in frames:
        group.append(frame)
        if len(group) == wanted:
            yield group
            group, wanted = [], size
    if group:
        yield group


def with_next(groups: Iterable[Group[Item]]) -> Iterator[tuple[Group[Item], Group[Item] | None]]:
    """Yield each group with the one that follows it."""
    before: Group[Item] | None = None
    for group in groups:
        if before is not None:
            yield before, group
        before = group
    if before is not None:
        yield before, None


class Looker:
    """Finds the faces of frames; stateless, safe to call from several threads.

    Args:
        detect: finds faces; takes ``turned`` and ``quick``, see :class:`vidanon.stages.detect.FaceDetector`.
        landmark: finds meshes in boxes, see :class:`vidanon.stages.landmark.Landmarker`.
    """

    def __init__(self, detect: Detect, landmark: Landmark) -> None:
        self._detect, self._landmark = detect, landmark

    def begin(self, frames: list[Frame]) -> Group[Frame]:
        """Look at the first frame of a group with every means."""
        turned = frames[0].index % TURNED_EVERY < len(frames)
        return Group(frames, self._look(frames[0].image, turned))

    def complete(self, groups: tuple[Group[Frame], Group[Frame] | None]) -> list[Seen]:
        """Return the frames of the first of two successive groups, with their faces and thumbnails."""
        group, following = groups
        pairs = None if following is None else same_faces(group.faces, following.faces)
        seen = [(group.frames[0], group.faces, thumbnail(group.frames[0].image))]
        for step, frame in enumerate(group.frames[1:], start=1):
            faces = None if pairs is None else self._follow(frame.image, pairs, step / len(group.frames))
            faces = self._look(frame.image, False) if faces is None else faces
            seen.append((frame, faces, thumbnail(frame.image)))
        return seen

    def _look(self, image: UInt8, turned: bool) -> list[Face]:
        faces = self._detect(image, turned=turned)
        meshes = self._landmark(image, [face.box for face in faces], [face.tilt for face in faces])
        found = [
            replace(face, landmarks=mesh[0], blendshapes=mesh[1]) if mesh else face
            for face, mesh in zip(faces, meshes, strict=True)
        ]
        return drop_duplicates(found)

    def _follow(self, image: UInt8, pairs: list[tuple[Face, Face]], share: float) -> list[Face] | None:
        """Find faces between two looks; None where one is not there or somebody new is."""
        boxes = boxes_between(pairs, share)
        if shows_somebody_new(image, boxes, self._detect):
            return None
        faces = []
        for (a, b), box, near in zip(pairs, boxes, meshes_between(pairs, share), strict=True):
            mesh = self._landmark.around(image, near)
            if mesh is None:
                return None
            faces.append(Face(box, min(a.score, b.score), *mesh, tilt=a.tilt))
        return faces


class Scanner(Generic[Item]):
    """Finds the boxes of faces without meshes; stateless, safe to call from threads.

    Where two looks differ, a look half way tells on which side; so groups may be longer than a Looker's.

    Args:
        detect: finds faces; takes ``quick``.
        picture_of: returns the picture of a frame, or of what holds one.
        closely: says of a frame and the boxes followed into it whether it must be looked at with every means
            all the same.
    """

    def __init__(
        self,
        detect: Detect,
        picture_of: Callable[[Item], UInt8],
        closely: Callable[[Item, list[Float]], bool],
    ) -> None:
        self._detect, self._picture_of, self._closely = detect, picture_of, closely

    def begin(self, frames: list[Item]) -> Group[Item]:
        """Look at the first frame of a group with every means."""
        return Group(frames, self._detect(self._picture_of(frames[0])))

    def complete(self, groups: tuple[Group[Item], Group[Item] | None]) -> list[tuple[Item, list[Float]]]:
        """Return the frames of the first of two successive groups with the boxes of their faces."""
        group, following = groups
        return self._fill(group.frames, group.faces, None if following is None else following.faces)

    def _fill(
        self, frames: list[Item], first: list[Face], after: list[Face] | None
    ) -> list[tuple[Item, list[Float]]]:
        """Find the boxes of frames from what the first of them shows and the one after the last."""
        seen = [(frames[0], [face.box for face in first])]
        if len(frames) == 1:
            return seen
        pairs = None if after is None else partners_of(first, after)
        if pairs is None:
            # Who moves fast, comes or goes: look half way, and follow on the side where nothing happens.
            half = len(frames) // 2
            middle = self._detect(self._picture_of(frames[half]))
            return self._fill(frames[:half], first, middle) + self._fill(frames[half:], middle, after)
        for step, frame in enumerate(frames[1:], start=1):
            boxes = self._follow(frame, pairs, step / len(frames))
            if boxes is None:
                boxes = [face.box for face in self._detect(self._picture_of(frame))]
            seen.append((frame, boxes))
        return seen

    def _follow(self, frame: Item, pairs: list[tuple[Face, Face]], share: float) -> list[Float] | None:
        boxes = boxes_between(pairs, share)
        if self._closely(frame, boxes) or shows_somebody_new(self._picture_of(frame), boxes, self._detect):
            return None
        return boxes


def same_faces(one: list[Face], other: list[Face]) -> list[tuple[Face, Face]] | None:
    """Pair the faces of two looks; None unless each has a mesh and exactly one partner in the other."""
    meshless = any(face.landmarks is None for face in [*one, *other])
    return None if meshless else partners_of(one, other)


def partners_of(one: list[Face], other: list[Face]) -> list[tuple[Face, Face]] | None:
    """Pair the faces of two looks; None unless each has exactly one partner in the other."""
    if len(one) != len(other):
        return None
    pairs = []
    for face in one:
        partners = [b for b in other if box_iou(face.box, b.box) >= SAME_FACE_IOU]
        if len(partners) != 1:
            return None
        pairs.append((face, partners[0]))
    return pairs if len({id(b) for _, b in pairs}) == len(pairs) else None


def boxes_between(pairs: list[tuple[Face, Face]], share: float) -> list[Float]:
    """Return where faces of two looks must be in between, ``share`` (0..1) of the way; float32 (4,) each."""
    return [((1 - share) * a.box + share * b.box).astype(np.float32) for a, b in pairs]


def meshes_between(pairs: list[tuple[Face, Face]], share: float) -> list[Float]:
    """Return about where the landmarks of faces with meshes must be in between; float32 (478, 2) each."""
    meshes = [(a.landmarks, b.landmarks) for a, b in pairs]
    return [
        ((1 - share) * a + share * b).astype(np.float32) for a, b in meshes if a is not None and b is not None
    ]


def shows_somebody_new(image: UInt8, boxes: list[Float], detect: Detect) -> bool:
    """Say whether one quick look finds a face away from all ``boxes``."""
    new = detect(image, quick=True)
    return any(max((box_iou(face.box, box) for box in boxes), default=0.0) < NEW_FACE_IOU for face in new)
