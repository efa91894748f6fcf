"""What stands in front of a face, and which pixels of a head are face: read off the segmenter's chances.

Part chances are float32 (7, 64, 64) on the unit crop, in the order of
:class:`vidanon.networks.segmenter.Part`. Those of a source have one more, of a hand that is known by its
shape, which is part of what is in front as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vidanon.geometry import compose, invert, picture_from_unit
from vidanon.models.registry import ModelStore, weights_path
from vidanon.networks.converted import Recipe, shared_network
from vidanon.stages.hands import HandFinder, with_hands
from vidanon.stages.mesh import BROWS, EYES, FOREHEAD, LIPS, NOSE
from vidanon.stages.outline import brow_mask, filled_hull
from vidanon.stages.synthesize import as_input
from vidanon.types import Bool, Float, UInt8

if TYPE_CHECKING:
    from torch import nn

CROP_PX = 128
BACKGROUND, SKIN, FEATURES, HAIR, BEARD, CLOTHES, OCCLUDER, HAND = range(8)
FACE = (SKIN, FEATURES, BEARD)
AROUND = (BACKGROUND, CLOTHES, OCCLUDER)

LIKELY, SURE = 0.6, 0.85
"""Hysteresis: something in front counts when it is sure somewhere and likely all over."""
PERHAPS, FEW_PIXELS = 0.3, 5
"""Where in fewer pixels of a face something may be in front, no hands are looked for, which takes 4 ms. Of
182 hands before faces none would have been missed."""
MIN_AREA = 0.004
"""Least area of something in front, as a share of the face."""
FROM_OUTSIDE = 0.1
"""Least part of it that lies outside the face, as a share of what lies on it. Of hands and hair before the
face in the sample clip it is more than twice as much; of the root of a nose that is taken for a hand in
profile, and would stay, .04 (driver_video3)."""
CORE_REACH, EYE_REACH = 0.03, 0.25
"""Borders of the middle of the face and of an eye, as shares of their widths."""
BROWS_COUNT = 2.0
"""So many times what is lost of brows counts beside what is lost of a forehead: a brow that ends under hair
which is not drawn is more conspicuous than smooth skin."""


def recipe() -> Recipe:
    """Return how the segmenter is made."""

    def build() -> nn.Module:
        from vidanon.networks.segmenter import load_segmenter

        return load_segmenter()

    example = (np.zeros((1, 3, CROP_PX, CROP_PX), np.float32),)
    return Recipe("segmenter", build, example, (weights_path("segmenter.safetensors"),))


class PartReader:
    """The segmenter, with hands beside it; safe to call from several threads.

    Args:
        models: where ``hands`` and the converted networks lie.
        device: ``cpu`` or ``cuda``.
        workers: number of threads that will call.

    Raises:
        ModelsError: ``hands`` is missing or unreadable.
    """

    def __init__(self, models: ModelStore, device: str, workers: int) -> None:
        self._network = shared_network(recipe(), models.converted, device, workers)
        self._hands = HandFinder(models, workers)

    def source(self, image: UInt8, crop: Float, crop_from_frame: Float, landmarks: Float) -> Float:
        """Return the part chances of a source, float32 (8, 64, 64).

        Args:
            image: uint8 RGB (h, w, 3), the frame.
            crop: float32 (3, 128, 128), [-1, 1], cut from it.
            crop_from_frame: float32 (2, 3), frame pixels to the unit crop.
            landmarks: float32 (478, 2), of the face, in the unit crop.
        """
        parts = _within_frame(self.crop(crop), crop_from_frame, image.shape)
        face = _hull(landmarks * np.float32(parts.shape[-1]), 0.0, parts.shape[1:])
        likely = np.count_nonzero((parts[OCCLUDER] > PERHAPS) & face) >= FEW_PIXELS
        return with_hands(parts, landmarks, self._hands(image, crop_from_frame) if likely else ())

    def crop(self, crop: Float) -> Float:
        """Return the part chances of a crop, float32 (3, 128, 128) in [-1, 1]."""
        return np.asarray(self._network(crop[None])[0][0], np.float32)

    def picture(self, picture: UInt8) -> Float:
        """Return the part chances of a generated picture, uint8 RGB (s, s, 3)."""
        small = cv2.resize(picture, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA)
        return self.crop(as_input(np.asarray(small, np.uint8)))


def _within_frame(parts: Float, crop_from_frame: Float, shape: tuple[int, ...]) -> Float:
    """Let nothing be in front beyond the border of a frame of that shape, where its last pixels go on.

    A nose cut off by the border is taken for a hand there, and would seem to come in from outside the face.
    """
    size = parts.shape[1]
    parts_from_frame = compose(picture_from_unit(size), crop_from_frame)
    inside = cv2.warpAffine(
        np.ones(shape[:2], np.uint8), parts_from_frame, (size, size), flags=cv2.INTER_NEAREST
    )
    if inside.all():
        return parts
    parts = parts.copy()
    parts[BACKGROUND] += parts[OCCLUDER] * (1 - inside)
    parts[OCCLUDER] *= inside
    return parts


def with_face_channel(picture: UInt8, parts: Float) -> UInt8:
    """Add the chance of being face as a fourth channel, 0..255, to be warped with the picture."""
    face = cv2.resize(parts[list(FACE)].sum(0), picture.shape[:2], interpolation=cv2.INTER_LINEAR)
    return np.dstack([picture, np.clip(face * 255, 0, 255).astype(np.uint8)])


def nothing_in_front(parts: Float) -> Float:
    """Return part chances (8, 64, 64) in which things in front count as skin, to be covered like it."""
    bare = parts.copy()
    bare[SKIN] += bare[OCCLUDER]
    bare[OCCLUDER:] = 0
    return bare


def share_in_front(parts: Float, landmarks: Float) -> float:
    """Return the share of eyes, nose and mouth that something in front hides, 0..1.

    Args:
        parts: float32 (8, 64, 64), part chances of the source.
        landmarks: float32 (478, 2), of the source in the unit crop.
    """
    points = landmarks * np.float32(parts.shape[-1])
    shape = parts.shape[1:]
    core, face = core_mask(points, shape), _hull(points, 0.0, shape)
    keep = in_front(parts.transpose(1, 2, 0), face, core, np.zeros(shape, np.float32))
    return float(keep[core].mean())


def fallen_hair(picture: UInt8, landmarks: Float, parts: Float) -> float:
    """Return how much of forehead or brows (0..1) is hair in a new picture and bare in the source.

    Args:
        picture: uint8 (s, s, 4), of :func:`with_face_channel`.
        landmarks: float32 (478, 2), pixels of the picture.
        parts: float32 (8, 64, 64), part chances of the source.
    """
    size = parts.shape[-1]
    face = cv2.resize(picture[..., 3], (size, size), interpolation=cv2.INTER_AREA) / np.float32(255)
    missing = np.clip(parts[list(FACE)].sum(0) - face, 0, 1)
    small = landmarks * np.float32(size / len(picture))
    forehead = filled_hull(small[list(FOREHEAD)], missing.shape)
    hair, lost = (
        float((missing * mask).sum() / max(mask.sum(), 1.0))
        for mask in (forehead, brow_mask(small, missing.shape))
    )
    return max(hair, min(BROWS_COUNT * lost, 1.0))


def place_parts(parts: Float, crop_from_frame: Float, view_from_frame: Float, size: tuple[int, int]) -> Float:
    """Draw part chances into a view of the frame.

    Args:
        parts: (8, 64, 64).
        crop_from_frame: float32 (2, 3), frame pixels to the unit crop.
        view_from_frame: float32 (2, 3), frame pixels to pixels of the view.
        size: width and height of the view, pixels.

    Returns:
        float32 (h, w, 8); background where the crop ends.
    """
    view_from_parts = compose(
        view_from_frame, compose(invert(crop_from_frame), invert(picture_from_unit(parts.shape[-1])))
    )
    others = np.ascontiguousarray(parts[1:].transpose(1, 2, 0))
    placed = np.empty((size[1], size[0], len(parts)), np.float32)
    for first, last in ((1, 4), (4, len(parts))):
        group = np.ascontiguousarray(others[..., first - 1 : last - 1])
        placed[..., first:last] = cv2.warpAffine(group, view_from_parts, size, flags=cv2.INTER_LINEAR)
    placed[..., BACKGROUND] = 1 - cv2.transform(placed[..., 1:HAND], np.ones((1, 6), np.float32))
    return placed


def ramp(values: Float, low: float, high: float) -> Float:
    """Return how far values have come on the way from ``low`` to ``high``, float32, 0..1."""
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), np.float32)


def core_mask(landmarks: Float, shape: tuple[int, ...]) -> Bool:
    """Return the eyes, nose and mouth with what is between them, bool (h, w)."""
    return _hull(landmarks[[*EYES, *NOSE, *LIPS]], CORE_REACH, shape)


def _hull(points: Float, reach: float, shape: tuple[int, ...]) -> Bool:
    """Return what lies between some points, and around by a share of their width, bool (h, w)."""
    hull = cv2.convexHull(points.astype(np.float32))[:, 0]
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(hull * 16).astype(np.int32)], 1, shift=4)
    reach_px = max(1, round(reach * float(np.ptp(hull[:, 0]))))
    return np.asarray(cv2.dilate(mask, np.ones((2 * reach_px + 1,) * 2, np.uint8)) > 0)


def eye_mask(landmarks: Float, shape: tuple[int, ...]) -> Bool:
    """Return the eyes with their lids, bool (h, w)."""
    half = len(EYES) // 2
    left, right = (_hull(landmarks[list(ids)], EYE_REACH, shape) for ids in (EYES[:half], EYES[half:]))
    return np.asarray(left | right)


def never_in_front(parts: Float, landmarks: Float) -> Bool:
    """Return where nothing stays in front, bool (h, w).

    That is the eyes: in hard light the shade of a brow looks like a hand. Where a hand is known by its shape,
    what else seems to be before brows and lids is such a shade as well, though it may reach the hand.

    Args:
        parts: float32 (h, w, 8), chances of the source.
        landmarks: float32 (478, 2), pixels of these.
    """
    hand, shape = parts[..., HAND], parts.shape
    never = eye_mask(landmarks, shape)
    return never | ((sockets(landmarks, shape) > 0) & (hand < SURE)) if hand.any() else never


def features(landmarks: Float, shape: tuple[int, ...]) -> Float:
    """Return the eyes between their lids, and nose and mouth with what is between them, float32 (h, w)."""
    half = len(EYES) // 2
    hulls = (EYES[:half], EYES[half:], (*NOSE, *LIPS))
    return np.asarray(np.max([filled_hull(landmarks[list(ids)], shape) for ids in hulls], axis=0), np.float32)


def sockets(landmarks: Float, shape: tuple[int, ...]) -> Float:
    """Return eyes and brows with the lids between them, float32 (h, w): there people differ, not their light.

    Lids may be deep in the shade of the brow, or painted; both are no colour for the skin around them.
    """
    eyes, brows = len(EYES) // 2, len(BROWS) // 2
    both = eye_mask(landmarks, shape).astype(np.float32)
    for ids in ((*EYES[:eyes], *BROWS[:brows]), (*EYES[eyes:], *BROWS[brows:])):
        both = np.maximum(both, filled_hull(landmarks[list(ids)], shape))
    return both


def lips(landmarks: Float, shape: tuple[int, ...]) -> Float:
    """Return the mouth, float32 (h, w)."""
    return filled_hull(landmarks[list(LIPS)], shape)


def in_front(parts: Float, face: Bool, core: Bool, upper: Float) -> Float:
    """Find what of the source stays in front of the new face.

    Fails closed: what stands in front comes in from outside the face or is a hand, is sure somewhere and
    likely all over; hair counts on the forehead and at the temples (lower down it may be a beard, and it
    frames the face that must not be known again), and over eyes, nose and mouth nothing but an occluder.
    Anything else is covered.

    Args:
        parts: float32 (h, w, 8), chances of the source.
        face: bool (h, w), the face oval.
        core: bool (h, w), eyes, nose and mouth.
        upper: float (h, w), how far hair is trusted on the face, 0..1.

    Returns:
        float32 (h, w), 0 (cover) .. 1 (keep the source).
    """
    occluder = parts[..., OCCLUDER]
    hair = parts[..., HAIR] * np.maximum(upper, ~face)
    chance = np.where(core, occluder, occluder + parts[..., CLOTHES] + hair)
    likely = chance > LIKELY
    count, numbers = cv2.connectedComponents(likely.astype(np.uint8), connectivity=4)
    keep = np.zeros(count, bool)
    keep[np.unique(numbers[chance > SURE])] = True
    before_core = np.bincount(numbers[core], minlength=count) > 0
    # Hair and clothes beside a nose that is taken for a hand do not make it come in from outside.
    from_outside = ~face & ((occluder > LIKELY) | ~before_core[numbers])
    inside, outside = (np.bincount(numbers[part], minlength=count) for part in (face, from_outside))
    known = np.bincount(numbers[parts[..., HAND] > SURE], minlength=count) > 0
    keep &= (inside >= MIN_AREA * max(int(face.sum()), 1)) & ((outside > FROM_OUTSIDE * inside) | known)
    keep[0] = False
    return np.asarray(keep[numbers] * ramp(chance, LIKELY, SURE), np.float32)


def fill_face(picture: Float, weight: Float, sigma_px: float) -> Float:
    """Spread the colours of the face over what is not face, the nearest ones counting most.

    Args:
        picture: float32 (h, w, c).
        weight: float32 (h, w), 1 where the picture shows face.
        sigma_px: reach of the finest of three scales.

    Returns:
        float32 (h, w, c), smooth.
    """
    return spread(picture, weight, (sigma_px, 3 * sigma_px, 9 * sigma_px))


def spread(picture: Float, weight: Float, sigmas_px: Sequence[float], floor: float = 1e-6) -> Float:
    """Blur a picture where it counts; each further scale counts a twentieth of the one before.

    All is done on a quarter of the size.

    Args:
        picture: float32 (h, w, c), c at most 3.
        weight: float32 (h, w), how much a pixel counts.
        sigmas_px: of the Gaussian kernels.
        floor: least sum of weights that is divided by; where less is in reach the result fades to 0.

    Returns:
        float32 (h, w, c).
    """
    height, width = weight.shape
    coarse = (max(2, width // 4), max(2, height // 4))
    weighted = cv2.multiply(picture, cv2.merge([weight] * picture.shape[2]))
    stacked = np.dstack([cv2.resize(x, coarse, interpolation=cv2.INTER_AREA) for x in (weighted, weight)])
    total = np.zeros(stacked.shape, np.float32)
    for number, sigma_px in enumerate(sigmas_px):
        blurred = cv2.GaussianBlur(stacked, (0, 0), max(sigma_px / 4, 0.5))
        total += np.asarray(blurred, np.float32) * np.float32(0.05**number)
    filled = total[..., :-1] / np.maximum(total[..., -1:], floor)
    large = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large.reshape(height, width, -1), np.float32)
