"""Find the hands before a face: MediaPipe's palm detector and hand landmark network, stateless.

To the segmenter, which learned from drawn hands, a clenched fist in the skin of the face behind it is half
chin and half beard. These networks know hands by their shape (Zhang et al. 2020, MediaPipe Hands), but not
what they cover, and see some in cheeks. So a hand counts that the segmenter takes for something in front at
least in part, or that comes in from outside the face.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vidanon.geometry import apply, compose, invert, picture_from_unit
from vidanon.networks.runtime import Network, network_from_file, shared, state_of_file
from vidanon.stages.landmark import box_iou, cut_square
from vidanon.types import Float, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

PALM_PX, HAND_PX = 192, 224
REACH = 1.5
"""Side of the square around a face that is looked at, unit crops: a palm may lie below the chin."""
MIN_PALM, MIN_PRESENCE = 0.4, 0.5
SAME_IOU = 0.3
"""Palms that overlap more are one."""
MOST_HANDS = 4
WRIST, MIDDLE = 0, 2
"""Among the seven points of a palm: between these, a hand points up."""
HAND_SCALE, HAND_UP = 2.6, 0.5
"""Side of the square around a hand, and how far it lies towards the fingers, in sides of the palm's box."""
FINGERS = tuple((0, first, first + 1, first + 2, first + 3) for first in (1, 5, 9, 13, 17))
PALM = (0, 1, 5, 9, 13, 17)
FINGER = 0.3
"""How thick a finger is, in widths of the palm."""
EDGE_ON = 0.75
"""A palm is no less wide than this share of its length: seen edge on, its knuckles lie together."""
NEAR = 0.35
"""So far around a hand, in widths of the palm, what is likely in front counts as sure."""
TRUST = 2.0
"""So many times the segmenter's chance counts there, and on the wrist."""
WRIST_LENGTH = 1.2
"""How far a wrist is followed, in lengths of the palm."""
FINE = 4
"""Masks are drawn so many times larger."""
MIN_OUTSIDE, MIN_SEEN = 0.5, 0.3
"""A hand counts with so many of its points outside the face, or where the segmenter takes so much of it for
something in front. Of the cheeks of asl_book and clm_cap12 that were taken for hands it saw .0 to .2, of the
fist before the mouth of asl_bird .5 to .6."""


class HandFinder:
    """MediaPipe's palm detector and hand landmark network; safe to call from several threads.

    Args:
        models: where ``hands`` lies.
        workers: number of threads that will call.

    Raises:
        ModelsError: the model is missing or unreadable.
    """

    def __init__(self, models: ModelStore, workers: int) -> None:
        palm = models.path("hands")
        files = palm, palm.with_name("hand-landmarks.tflite")

        def load() -> list[Network]:
            return [network_from_file(file, workers=workers) for file in files]

        self._palms, self._landmarks = shared((*state_of_file(palm), workers), load)
        self._anchors = _anchors()

    def __call__(self, image: UInt8, crop_from_frame: Float) -> list[Float]:
        """Find the hands around a face.

        Args:
            image: uint8 RGB (h, w, 3).
            crop_from_frame: float32 (2, 3), frame pixels to the unit crop.

        Returns:
            float32 (21, 2) each, in the unit crop.
        """
        corner = np.float32(0.5 - REACH / 2)
        crop_from_square = np.array([[REACH, 0, corner], [0, REACH, corner]], np.float32)
        frame_from_square = compose(invert(crop_from_frame), crop_from_square)
        hands = []
        # Black outside the frame: the border of a hand that goes on down is not seen as one.
        for square_from_hand in self._palms_in(cut_square(image, frame_from_square, PALM_PX, ends=True)):
            seen = cut_square(image, compose(frame_from_square, square_from_hand), HAND_PX, ends=True)
            points, presence, *_ = self._landmarks(seen[None].astype(np.float32) / 255)
            if float(presence.item()) >= MIN_PRESENCE:
                unit = np.asarray(points.reshape(-1, 3)[:, :2] / HAND_PX, np.float32)
                hands.append(apply(compose(crop_from_square, square_from_hand), unit))
        return hands

    def _palms_in(self, picture: UInt8) -> Iterator[Float]:
        """Yield for every palm in a square, float32 (2, 3), where the square around its hand lies in it."""
        found, scores = self._palms(picture[None].astype(np.float32) / 255)
        chances = 1 / (1 + np.exp(-np.clip(scores[0, :, 0], -50, 50)))
        boxes: list[Float] = []
        for row in np.argsort(-chances)[: 8 * MOST_HANDS]:
            if chances[row] < MIN_PALM or len(boxes) == MOST_HANDS:
                break
            # Centre and size of the box, and seven points, all but the size from the anchor.
            values = (found[0, row] / PALM_PX).reshape(-1, 2)
            centre, size, points = values[0] + self._anchors[row], values[1], values[2:] + self._anchors[row]
            box = np.concatenate([centre - size / 2, centre + size / 2]).astype(np.float32)
            if all(box_iou(box, other) <= SAME_IOU for other in boxes):
                boxes.append(box)
                yield _square_around(centre, float(size.max()), points[MIDDLE] - points[WRIST])


def _anchors() -> Float:
    """Return the centres of the palm detector's anchors, float32 (2016, 2): two per 8 px, six per 16."""
    grids = []
    for step_px, count in ((8, 2), (16, 6)):
        side = PALM_PX // step_px
        rows, columns = np.divmod(np.repeat(np.arange(side * side), count), side)
        grids.append((np.stack([columns, rows], axis=1) + 0.5) / side)
    return np.concatenate(grids).astype(np.float32)


def _square_around(centre: Float, side: float, up: Float) -> Float:
    """Return the affine map, float32 (2, 3), from the unit square around a hand, in which it points up."""
    up = up / max(float(np.hypot(*up)), 1e-6)
    y = -up * HAND_SCALE * side
    x = np.array([y[1], -y[0]])
    middle = centre + HAND_UP * side * up
    return np.stack([x, y, middle - (x + y) / 2], axis=1).astype(np.float32)


def with_hands(parts: Float, landmarks: Float, hands: Sequence[Float]) -> Float:
    """Add hands before the face to what is in front of it.

    Args:
        parts: float32 (7, h, h), part chances of the unit crop, the last of what is in front.
        landmarks: float32 (478, 2), of the face, in the unit crop.
        hands: float32 (21, 2) each, in the unit crop.

    Returns:
        float32 (8, h, h): the last says how far a hand covers it.
    """
    before, size = parts[-1], parts.shape[-1]
    pixels = picture_from_unit(size)
    after, known = before, np.zeros_like(before)
    for hand in hands:
        points = apply(pixels, hand)
        mask = hand_mask(points, size)
        if _is_before(points, mask, apply(pixels, landmarks.astype(np.float32)), before):
            near = np.clip(TRUST * before, 0, 1) * _mask(points, size, FINGER + NEAR, WRIST_LENGTH)
            known = np.maximum(known, mask)
            after = np.maximum(after, np.maximum(mask, near))
    rest = (1 - after) / np.maximum(1 - before, 1e-6)
    return np.concatenate([parts[:-1] * rest, after[None], known[None]]).astype(np.float32)


def _is_before(points: Float, mask: Float, landmarks: Float, before: Float) -> bool:
    """Say whether a hand is before a face: it comes in from outside, or the segmenter half sees it."""
    outline = np.asarray(cv2.convexHull(landmarks), np.float32)
    face = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), np.round(outline).astype(np.int32), 1) > 0
    outside = [cv2.pointPolygonTest(outline, (float(x), float(y)), False) < 0 for x, y in points]
    weight = mask * face
    seen = float((weight * before).sum() / max(float(weight.sum()), 1e-6))
    return float(np.mean(outside)) >= MIN_OUTSIDE or seen >= MIN_SEEN


def hand_mask(points: Float, size: int) -> Float:
    """Return what a hand covers, float32 (size, size), 0..1.

    Args:
        points: float32 (21, 2), pixels of that.
        size: pixels.
    """
    return _mask(points, size, FINGER, 0.0)


def _mask(points: Float, size: int, thick: float, wrist: float) -> Float:
    """Draw palm and fingers, so thick in widths of the palm, and the wrist for so many lengths of it."""
    points = points * FINE + (FINE - 1) / 2
    knuckles = points[list(PALM[2:])].mean(axis=0)
    length = float(np.hypot(*(knuckles - points[WRIST])))
    width = max(float(np.hypot(*(points[PALM[2]] - points[PALM[-1]]))), EDGE_ON * length)
    mask = np.zeros((FINE * size,) * 2, np.uint8)
    palm = np.round(points[list(PALM)]).astype(np.int32)
    cv2.fillConvexPoly(mask, cv2.convexHull(palm), 1)
    for finger in FINGERS:
        line = np.round(points[list(finger)]).astype(np.int32)
        cv2.polylines(mask, [line], False, 1, max(1, round(thick * width)))
    if wrist:
        end = points[WRIST] + wrist * (points[WRIST] - knuckles)
        line = np.round([points[WRIST], end]).astype(np.int32)
        cv2.polylines(mask, [line], False, 1, max(1, round(width)))
    return np.asarray(
        cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA), np.float32
    )
