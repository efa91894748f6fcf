"""How dark brows, eyes, beard and the inside of the mouth are, beside the cheeks: read in any light."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from vidanon.stages.brows import below_skin
from vidanon.stages.colour import LIGHT_SIGMA
from vidanon.stages.mesh import CHIN, EYES, INNER_LIPS, LIPS_APART, SKIN_PATCHES, UPPER_CHEEKS
from vidanon.stages.outline import filled, filled_hull
from vidanon.types import Float, UInt8

PATCH = 0.05
"""Side of what is looked at around a point of the face, widths of the face."""
LEAST_OPEN = 0.015
"""Lips that are less apart, heights of the face, show nothing of the mouth."""
BRIGHTEST = 1.4
DARK_HAIRS = 0.25
"""Share of what lies between the landmarks of the brows: thin ones do not fill it."""
LEAST_DEPTH = 0.1
DARKEST = 0.2
"""Share of the eyes that is looked at: pupils and lashes, not how much of the white is seen."""

LEAST_GLARE_PX, GRAINS, DARK_LEVELS = 60, 0.01, 4
"""Glare is looked for in faces so wide, without what is finer than this share of that; black is so dark."""


def chin_shade(image: UInt8, landmarks: Float) -> float:
    """Return how bright the chin is beside the cheeks, 0..1: about .9 where it is bare, .4 under a beard.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    grey = _grey(image)
    return min(_brightness(grey, landmarks, CHIN) / _cheeks(grey, landmarks), 1.0)


def brow_depth(image: UInt8, landmarks: Float) -> float:
    """Return how far the hairs of the brows are below the skin on either side, beside the cheeks, 0..1.

    In the shade of deep sockets, or painted, lids are dark; a brow no darker than these is not seen.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    return float(_brows_below(image, landmarks)[1])


def brow_depths(image: UInt8, landmarks: Float) -> Float:
    """Return how far brows are below the cheeks, and :func:`brow_depth`, both beside how far the eyes are.

    Haze makes dark brows look fair, and does the same to pupils and lashes. In small faces brows and lids run
    into one another: there only the first tells how dark brows are.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.

    Returns:
        float32 (2,), 0..1.
    """
    eyes = max(1 - eye_shade(image, landmarks), LEAST_DEPTH)
    return np.asarray(np.minimum(_brows_below(image, landmarks) / eyes, 1), np.float32)


def _brows_below(image: UInt8, landmarks: Float) -> Float:
    """Return how far hairs of the brows are below the cheeks, and the skin on either side, (2,), 0..1."""
    place, below, mask = below_skin(image, landmarks)
    brows = mask > 0.5
    if not brows.any():
        return np.zeros(2, np.float32)
    cheeks = _cheeks(image, landmarks, _grey)
    hairs, depths = _grey(image[place])[brows], below.mean(axis=2)[brows]
    darkest, deepest = np.quantile(hairs, DARK_HAIRS), np.quantile(depths, 1 - DARK_HAIRS)
    return np.asarray(np.clip(np.array([cheeks - darkest, deepest]) / cheeks, 0, 1), np.float32)


def eye_shade(image: UInt8, landmarks: Float) -> float:
    """Return how bright the darkest of the eyes is beside the cheeks, 0..1: .3 in clear pictures, .6 in haze.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    half = len(EYES) // 2
    shades: list[float] = []
    for ids in (EYES[:half], EYES[half:]):
        patch, eye = _patch_around(image, landmarks[list(ids)])
        if patch.size:
            seen = np.sort(_grey(patch)[filled_hull(eye, patch.shape) > 0])
            shades.extend(seen[: max(1, round(DARKEST * len(seen)))])
    return min(float(np.mean(shades)) / _cheeks(image, landmarks, _grey), 1.0) if shades else 1.0


def glare(image: UInt8, landmarks: Float) -> float:
    """Return how much brighter the brightest skin is than most of it: .1 in soft light, .3 like metal.

    Light coarser than the colour match takes over from the source is left out; so are single pixels.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.

    Returns:
        Of logarithms; NaN of a face narrower than ``LEAST_GLARE_PX``.
    """
    width_px = float(np.ptp(landmarks[:, 0]))
    patch, points = _patch_around(image, landmarks)
    if width_px < LEAST_GLARE_PX or not patch.size:
        return float("nan")
    skin = np.zeros(patch.shape[:2], np.uint8)
    for ids in SKIN_PATCHES:
        cv2.fillPoly(skin, [np.round(points[list(ids)]).astype(np.int32)], 1)
    share = skin.astype(np.float32)
    bright = np.log(np.maximum(_grey(patch), DARK_LEVELS).astype(np.float32))
    coarse, around = (cv2.GaussianBlur(x, (0, 0), LIGHT_SIGMA * width_px) for x in (bright * share, share))
    fine = cv2.GaussianBlur(bright, (0, 0), GRAINS * width_px)
    relief = (fine - coarse / np.maximum(around, 1e-3))[skin > 0]
    return float(np.quantile(relief, 0.95) - np.median(relief)) if len(relief) else float("nan")


def mouth_opening(landmarks: Float) -> float:
    """Return how far the lips of landmarks (478, 2) are apart, heights of the face."""
    apart, height = landmarks[LIPS_APART[1]] - landmarks[LIPS_APART[0]], landmarks[152] - landmarks[10]
    return float(np.hypot(*apart) / max(np.hypot(*height), 1e-6))


def mouth_shade(image: UInt8, landmarks: Float) -> float:
    """Return how bright the inside of the mouth is beside the cheeks, 0..1.4: 1 with teeth, .4 without.

    The tongue and lips are red and count as dark. NaN where the mouth is closed.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    patch, inner = _patch_around(image, landmarks[list(INNER_LIPS)])
    mouth = _not_red(patch)
    share = filled(inner, mouth.shape) if mouth.size else mouth
    if mouth_opening(landmarks) < LEAST_OPEN or share.sum() < 1:
        return float("nan")
    inside = float((mouth * share).sum() / share.sum())
    return min(inside / _cheeks(image, landmarks, _not_red), BRIGHTEST)


def _patch_around(image: UInt8, points: Float) -> tuple[UInt8, Float]:
    """Return what lies around some points (n, 2), as far as the image goes, and where they are in it."""
    low = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
    high = np.maximum(np.ceil(points.max(axis=0)).astype(int) + 1, low)
    return image[low[1] : high[1], low[0] : high[0]], points - low.astype(np.float32)


def _not_red(image: UInt8) -> UInt8:
    return np.asarray(image[..., 1:3].min(axis=2), np.uint8)


def _grey(image: UInt8) -> UInt8:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _cheeks(image: UInt8, landmarks: Float, of: Callable[[UInt8], UInt8] = np.asarray) -> float:
    """Return how bright the cheeks are, see :func:`_brightness`; 1 at least, as it is divided by."""
    return max(_brightness(image, landmarks, UPPER_CHEEKS, of), 1.0)


def _brightness(
    image: UInt8, landmarks: Float, points: tuple[int, ...], of: Callable[[UInt8], UInt8] = np.asarray
) -> float:
    """Return the mean around some points of an image, or of what is made of the patches."""
    side = max(3, round(PATCH * float(np.ptp(landmarks[:, 0]))))
    patches = (cv2.getRectSubPix(image, (side, side), tuple(map(float, landmarks[i]))) for i in points)
    return float(np.mean([of(np.asarray(patch, np.uint8)) for patch in patches]))
