"""The brows of a face: where they lie, and made darker where fair ones would not go with dark hair."""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.stages.mesh import BROWS
from vidanon.stages.outline import filled_hull
from vidanon.types import Float, UInt8

SOFT = 0.03
"""Blur of the border of what is darkened, widths of the face: brows thin out at their edges."""
STRENGTH = 1.3
"""So much blur takes away in the middle of brows of usual height."""


def brow_mask(landmarks: Float, shape: tuple[int, ...]) -> Float:
    """Return where the brows lie, float32 (h, w), 0..1.

    Args:
        landmarks: float32 (478, 2), pixels.
        shape: of the picture.
    """
    half = len(BROWS) // 2
    left, right = (filled_hull(landmarks[list(ids)], shape) for ids in (BROWS[:half], BROWS[half:]))
    return np.maximum(left, right)


def darkened(picture: UInt8, landmarks: Float, gain: float) -> UInt8:
    """Return a picture with darker brows.

    Args:
        picture: uint8 (h, w, c); of more channels than three the first three are RGB.
        landmarks: float32 (478, 2), pixels.
        gain: what their brightness is multiplied by, 0..1.

    Returns:
        uint8 (h, w, c); ``picture`` itself for a gain of 1.
    """
    if gain >= 1:
        return picture
    sigma_px = max(SOFT * float(np.ptp(landmarks[:, 0])), 0.5)
    points = landmarks[list(BROWS)]
    low = np.maximum(np.floor(points.min(0) - 3 * sigma_px).astype(int), 0)
    high = np.maximum(np.ceil(points.max(0) + 3 * sigma_px).astype(int), low + 1)
    place = slice(low[1], high[1]), slice(low[0], high[0]), slice(3)
    result = picture.copy()
    patch = result[place]
    if patch.size:
        mask = brow_mask(landmarks - low.astype(np.float32), patch.shape)
        share = np.clip(STRENGTH * cv2.GaussianBlur(mask, (0, 0), sigma_px), 0, 1)
        result[place] = np.round(patch * (1 - np.float32(1 - gain) * share[..., None])).astype(np.uint8)
    return result
