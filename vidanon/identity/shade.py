"""How dark brows and beard are, beside the cheeks: read off a picture, whatever its light."""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.stages.brows import brow_mask
from vidanon.stages.mesh import CHIN, UPPER_CHEEKS
from vidanon.types import Float, UInt8

PATCH = 0.05
"""Side of what is looked at around a point of the face, widths of the face."""


def chin_shade(image: UInt8, landmarks: Float) -> float:
    """Return how bright the chin is beside the cheeks, 0..1: about .9 where it is bare, .4 under a beard.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    grey = _grey(image)
    return _beside_cheeks(_brightness(grey, landmarks, CHIN), grey, landmarks)


def brow_shade(image: UInt8, landmarks: Float) -> float:
    """Return how bright the brows are beside the cheeks, 0..1: about .8 of the fair, .5 of the dark.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    grey = _grey(image)
    brows = grey[brow_mask(landmarks, grey.shape) > 0.5]
    return _beside_cheeks(float(brows.mean()) if len(brows) else 255.0, grey, landmarks)


def _grey(image: UInt8) -> UInt8:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _beside_cheeks(brightness: float, grey: UInt8, landmarks: Float) -> float:
    return min(brightness / max(_brightness(grey, landmarks, UPPER_CHEEKS), 1.0), 1.0)


def _brightness(grey: UInt8, landmarks: Float, points: tuple[int, ...]) -> float:
    side = max(3, round(PATCH * float(np.ptp(landmarks[:, 0]))))
    patches = [cv2.getRectSubPix(grey, (side, side), tuple(map(float, landmarks[i]))) for i in points]
    return float(np.mean(patches))
