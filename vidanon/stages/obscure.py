"""The fallback: a face that cannot be replaced well is made unrecognisable, irreversibly."""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.types import Float, UInt8

CELLS = 4
"""Cells across the covered region: what is left of a face is a handful of averages."""
PLAIN_LEVELS = 12.0
"""Mean change of the face (0..255) below which it gets one colour: averages of a face out of focus are that
face, and the audit could not tell it from the original."""
MARGIN = 0.25
"""The covered ellipse reaches past the box by this share of its size on each side."""


def obscure(image: UInt8, box: Float) -> None:
    """Pixelate and blur an ellipse around a face, in place.

    Args:
        image: uint8 (height, width, 3), changed in place.
        box: float32 (4,), frame pixels; parts outside the frame are ignored.
    """
    height, width = image.shape[:2]
    size = box[2:] - box[:2]
    low = np.floor(box[:2] - MARGIN * size).astype(int)
    high = np.ceil(box[2:] + MARGIN * size).astype(int)
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(high + 1, (width, height))
    if x1 <= x0 or y1 <= y0:
        return
    patch = image[y0:y1, x0:x1]
    cover = _averages(patch, CELLS)
    rows, columns = (slice(side // 4, side - side // 4) for side in patch.shape[:2])
    if float(cv2.absdiff(patch, cover)[rows, columns].mean()) < PLAIN_LEVELS:
        cover = _averages(patch, 1)
    ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    center, radius = (low + high) / 2, np.maximum((high - low) / 2, 1)
    inside = ((xs - center[0]) / radius[0]) ** 2 + ((ys - center[1]) / radius[1]) ** 2 <= 1
    patch[inside] = cover[inside]


def _averages(patch: UInt8, cells: int) -> UInt8:
    """Return the patch as a smooth picture of ``cells`` x ``cells`` averages."""
    height, width = patch.shape[:2]
    small = cv2.resize(patch, (min(cells, width), min(cells, height)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
