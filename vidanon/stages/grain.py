"""Give skin that was filled in the grain of skin: smooth, it looks painted."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from vidanon.geometry import compose, invert, picture_from_unit
from vidanon.stages.sharpness import DETAIL_PX
from vidanon.types import Float, UInt8

MEDIAN_TO_DEVIATION = 1.48
"""Of a normal distribution. The median leaves out the edges of eyes and mouth, which are no grain."""
FINE_PX, COARSE_PX, COARSE_SHARE = 0.6, 1.2, 0.15
"""Blurs of the two parts of the texture, and how strong the second is: skin has pores and blotches."""
MOST_PX = 1024
"""Largest side of the texture, which lies over the whole crop."""


def skin_grain(new: UInt8, skin: Float, crop_from_view: Float) -> Float:
    """Draw grain as strong as that of the new face's skin, fixed to the head so that it does not boil.

    Args:
        new: uint8 (h, w, 4), the new face in the frame's geometry.
        skin: float32 (h, w), where it shows skin.
        crop_from_view: float32 (2, 3), pixels of the view to the unit crop.

    Returns:
        float32 (h, w), grey levels to add.
    """
    grey = np.asarray(cv2.cvtColor(new[..., :3], cv2.COLOR_RGB2GRAY), np.float32)
    fine = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_PX))[skin > 0.5]
    level = MEDIAN_TO_DEVIATION * float(np.median(fine)) if len(fine) else 0.0
    side_px = 1 / max(float(np.hypot(*crop_from_view[:, 0])), 1e-6)
    # About one pixel of texture per pixel of the view: finer, it would flicker where the head moves.
    texture = _texture(int(min(2 ** round(np.log2(max(side_px, 1))), MOST_PX)))
    view_from_texture = compose(invert(crop_from_view), invert(picture_from_unit(len(texture))))
    size = new.shape[1], new.shape[0]
    placed = cv2.warpAffine(texture, view_from_texture, size, flags=cv2.INTER_LINEAR)
    return np.asarray(placed * np.float32(level), np.float32)


@functools.lru_cache(maxsize=4)
def _texture(side_px: int) -> Float:
    """Return noise whose fine part has a deviation of 1, the same in every run, float32 (side, side)."""
    random = np.random.default_rng(side_px)
    white, coarse = random.standard_normal((2, side_px, side_px)).astype(np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), COARSE_PX)
    mixed = cv2.GaussianBlur(white, (0, 0), FINE_PX) + COARSE_SHARE * coarse / float(coarse.std())
    fine = mixed - cv2.GaussianBlur(mixed, (0, 0), DETAIL_PX)
    return np.asarray(mixed / max(float(fine.std()), 1e-6), np.float32)
