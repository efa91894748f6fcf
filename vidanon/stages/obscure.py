"""The fallback: a face that cannot be replaced well is made unrecognisable, irreversibly."""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.types import Float, UInt8

CELLS = 4
"""Cells across the covered region: what is left of a face is a handful of averages."""
PLAIN_LEVELS, DETAILED_LEVELS = 12.0, 18.0
"""Mean change of the face (0..255) below which it gets one colour: averages of a face out of focus are that
face, and the audit could not tell it from the original. Between the two it gets some of both, so that masks
do not change from one frame to the next."""
MARGIN = 0.25
"""The covered ellipse reaches past the box by this share of its size on each side."""
FEATHER = 0.08
"""Outside the ellipse the mask fades away over this share of its radius."""


def obscure(image: UInt8, box: Float) -> None:
    """Pixelate and blur an ellipse around a face, in place.

    Args:
        image: uint8 (height, width, 3), changed in place.
        box: float32 (4,), frame pixels; parts outside the frame are ignored.
    """
    height, width = image.shape[:2]
    size = box[2:] - box[:2]
    low, high = box[:2] - MARGIN * size, box[2:] + MARGIN * size
    center, radius = (low + high) / 2, np.maximum((high - low) / 2, 1)
    x0, y0 = np.maximum(np.floor(center - (1 + FEATHER) * radius).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(center + (1 + FEATHER) * radius).astype(int) + 1, (width, height))
    if x1 <= x0 or y1 <= y0:
        return
    patch = image[y0:y1, x0:x1]
    cover = _averages(patch, CELLS)
    rows, columns = (slice(side // 4, side - side // 4) for side in patch.shape[:2])
    change = float(cv2.absdiff(patch, cover)[rows, columns].mean())
    detailed = float(np.interp(change, (PLAIN_LEVELS, DETAILED_LEVELS), (0, 1)))
    shown = cv2.addWeighted(cover, detailed, _averages(patch, 1), 1 - detailed, 0)
    ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    distance = np.sqrt(((xs - center[0]) / radius[0]) ** 2 + ((ys - center[1]) / radius[1]) ** 2)
    alpha = np.clip((1 + FEATHER - distance) / FEATHER, 0, 1)[..., None]
    patch[:] = np.rint(alpha * shown + (1 - alpha) * patch)


def _averages(patch: UInt8, cells: int) -> UInt8:
    """Return the patch as a smooth picture of ``cells`` x ``cells`` averages."""
    height, width = patch.shape[:2]
    small = cv2.resize(patch, (min(cells, width), min(cells, height)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
