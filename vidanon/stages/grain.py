"""Give skin that was filled in the grain of skin: smooth, it looks painted."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from vidanon.geometry import compose, invert, picture_from_unit
from vidanon.stages.sharpness import DETAIL_PX
from vidanon.types import Float, UInt8

QUARTILE_TO_DEVIATION = 3.14
"""Of the distances of normally distributed values from their mean. The lower quartile leaves out the edges of
eyes and mouth, which are no grain: of a small face they are nearly half."""
FINE_PX, COARSE_PX, COARSE_SHARE = 0.6, 1.2, 0.15
"""Blurs of the two parts of the texture, and how strong the second is: skin has pores and blotches."""
LEAST_SHARE = 0.2
"""Less filled-in skin than this needs none."""
MOST_PX = 1024
"""Largest side of the texture, which lies over the whole crop."""


def add_grain(
    picture: Float, views: tuple[tuple[UInt8, float], ...], skin: Float, filled: Float, crop_from_view: Float
) -> Float:
    """Add grain as strong as that of the smoothest skin shown, fixed to the head so that it does not boil.

    Args:
        picture: float32 (h, w, 3), changed in place.
        views: the new face in the frame's geometry, and the source: uint8 (h, w, 3 or 4), and what their
            brightness is multiplied by.
        skin: float32 (h, w), where they show skin.
        filled: float32 (any, any), share of filled-in skin, 0..1; a smaller copy will do.
        crop_from_view: float32 (2, 3), pixels of the view to the unit crop.

    Returns:
        The picture.
    """
    left, top, columns, rows = cv2.boundingRect((filled > LEAST_SHARE).astype(np.uint8))
    if not columns:
        return picture
    scale = np.array(skin.shape[::-1]) / filled.shape[::-1]
    x, y = np.floor(scale * (left, top)).astype(int).tolist()
    width, height = np.ceil(scale * (columns, rows)).astype(int).tolist()
    part = slice(y, y + height), slice(x, x + width)
    height, width = skin[part].shape
    share = cv2.resize(filled[top : top + rows, left : left + columns], (width, height))
    side_px = 1 / max(float(np.hypot(*crop_from_view[:, 0])), 1e-6)
    # About one pixel of texture per pixel of the view: finer, it would flicker where the head moves.
    texture = _texture(int(min(2 ** round(np.log2(max(side_px, 1))), MOST_PX)))
    view_from_texture = compose(invert(crop_from_view), invert(picture_from_unit(len(texture))))
    view_from_texture[:, 2] -= (x, y)
    grain = cv2.warpAffine(texture, view_from_texture, (width, height), flags=cv2.INTER_LINEAR)
    grain = cv2.multiply(grain, share, scale=min(gain * _level(view, skin) for view, gain in views))
    picture[part] = cv2.add(picture[part], cv2.merge([grain] * 3))
    return picture


def _level(view: UInt8, skin: Float) -> float:
    """Return the deviation of the fine detail of all skin that is shown, grey levels."""
    grey = np.asarray(cv2.cvtColor(view[..., :3], cv2.COLOR_RGB2GRAY), np.float32)
    fine = (grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_PX))[skin > 0.5][::4]
    return QUARTILE_TO_DEVIATION * float(np.percentile(np.abs(fine), 25)) if len(fine) else 0.0


@functools.lru_cache(maxsize=4)
def _texture(side_px: int) -> Float:
    """Return noise whose fine part has a deviation of 1, the same in every run, float32 (side, side)."""
    random = np.random.default_rng(side_px)
    white, coarse = random.standard_normal((2, side_px, side_px)).astype(np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), COARSE_PX)
    mixed = cv2.GaussianBlur(white, (0, 0), FINE_PX) + COARSE_SHARE * coarse / float(coarse.std())
    fine = mixed - cv2.GaussianBlur(mixed, (0, 0), DETAIL_PX)
    return np.asarray(mixed / max(float(fine.std()), 1e-6), np.float32)
