"""How far brows are below the skin, and darker ones where fair ones would not go with dark hair."""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.geometry import pixels_around
from vidanon.stages.colour import LUMA
from vidanon.stages.mesh import BROWS
from vidanon.stages.outline import brow_mask
from vidanon.types import Float, UInt8

THICK = 0.11
"""What is darker than all around and narrower than this, face widths, is a brow; shaded sockets are wider."""
COARSE_PX = 64
"""Width of the face in which the skin under the brows is looked for."""
SOFT = 0.03
"""Blur of the border of what is darkened, widths of the face: brows thin out at their edges."""
STRENGTH = 1.3
"""So much blur takes away in the middle of brows of usual height."""


def below_skin(picture: UInt8, landmarks: Float) -> tuple[tuple[slice, slice], Float, Float]:
    """Return how far brows are below the skin on either side of them, whichever is the darker.

    Args:
        picture: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.

    Returns:
        A place in the picture around the brows; there, float32 (rows, columns, 3), how far pixels are below
        the skin, 0..255, and (rows, columns), where the brows lie, 0..1.
    """
    width_px = max(float(np.ptp(landmarks[:, 0])), 1.0)
    points = landmarks[list(BROWS)]
    around = np.concatenate([points - THICK * width_px, points + THICK * width_px])
    low, high = pixels_around(around, picture.shape, beyond=0)
    place = slice(low[1], high[1]), slice(low[0], high[0])
    patch = np.asarray(picture[place], np.float32)
    size = patch.shape[1], patch.shape[0]
    scale = min(1.0, COARSE_PX / width_px)
    coarse = cv2.resize(patch, [max(1, round(side * scale)) for side in size], interpolation=cv2.INTER_AREA)
    thick = max(3, round(THICK * width_px * scale)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thick, thick))
    skin = cv2.resize(cv2.morphologyEx(coarse, cv2.MORPH_CLOSE, kernel), size)
    below = np.maximum(np.asarray(skin, np.float32) - patch, 0)
    return place, below, brow_mask(landmarks - low.astype(np.float32), patch.shape)


def darkened(picture: UInt8, landmarks: Float, gain: float) -> UInt8:
    """Return a picture whose brows are further below the skin around them: their hairs get darker.

    Their hue stays; further below skin in each colour by itself, they would turn blue.

    Args:
        picture: uint8 (h, w, c); of more channels than three the first three are RGB.
        landmarks: float32 (478, 2), pixels.
        gain: what it is multiplied by how much darker than the skin they are, 1 or more.

    Returns:
        uint8 (h, w, c); ``picture`` itself for a gain of 1.
    """
    if gain <= 1:
        return picture
    place, below, mask = below_skin(picture[..., :3], landmarks)
    soft_px = max(SOFT * float(np.ptp(landmarks[:, 0])), 0.5)
    share = np.clip(STRENGTH * cv2.GaussianBlur(mask, (0, 0), soft_px), 0, 1)
    result = picture.copy()
    patch = result[place][..., :3]
    deeper = np.float32(gain - 1) * share * (below @ LUMA[0]) / np.maximum(patch @ LUMA[0], 1)
    result[place][..., :3] = np.round(patch * np.maximum(1 - deeper, 0)[..., None]).astype(np.uint8)
    return result
