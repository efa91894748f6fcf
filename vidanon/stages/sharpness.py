"""Make the new face as sharp as the video: it would stand out in a soft one, and soft in a sharp one."""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.types import Float, UInt8

SOFT_PX = (0.0, 0.6, 0.9, 1.3, 1.8, 2.5)
"""Standard deviations of the blurs between which the right one is looked for, least first."""
LEAST_PX = 0.2
"""A lighter blur would change nothing."""
DETAIL_PX = 1.0
"""What this blur takes away is detail; with 1.5, eyes of webcam faces came out softer than the source's."""


MOST_SHARPENED = 0.8
"""More than this share of its own detail is not added to a soft face: edges would get halos."""


def match_detail(new: UInt8, source: UInt8, contrast: float, weight: Float, open_to: Float) -> UInt8:
    """Blur or sharpen the new face until it shows as much fine detail as the source.

    Args:
        new: uint8 (h, w, 4), the new face in the frame's geometry, with its face channel.
        source: uint8 RGB (h, w, 3).
        contrast: what that of the new face is multiplied by afterwards, and its detail with it.
        weight: float32 (h, w), where both show the face.
        open_to: float32 (h, w), where the new face may be sharpened, 0..1.

    Returns:
        uint8 (h, w, 4); ``new`` itself where it need not change.
    """
    wanted = _detail(_grey(source), weight) / max(contrast, 1e-3)
    grey = _grey(new)
    found = [_detail(grey, weight)]
    if wanted > found[0] > 0:
        more = min(wanted / found[0] - 1, MOST_SHARPENED)
        blurred = cv2.GaussianBlur(new, (0, 0), DETAIL_PX)
        sharp = cv2.addWeighted(new, 1 + more, blurred, -more, 0)
        return np.asarray(cv2.blendLinear(sharp, new, open_to, 1 - open_to), np.uint8)
    for sigma_px in SOFT_PX[1:]:
        if found[-1] <= wanted:
            break
        soft = np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma_px), np.float32)
        found.append(_detail(soft, weight))
    sigma_px = float(np.interp(wanted, found[::-1], SOFT_PX[: len(found)][::-1]))
    return new if sigma_px < LEAST_PX else np.asarray(cv2.GaussianBlur(new, (0, 0), sigma_px), np.uint8)


def _grey(picture: UInt8) -> Float:
    return np.asarray(cv2.cvtColor(picture[..., :3], cv2.COLOR_RGB2GRAY), np.float32)


def _detail(grey: Float, weight: Float) -> float:
    """Return the standard deviation of fine detail where it counts, grey levels."""
    fine = grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_PX)
    return float(np.sqrt((weight * fine**2).sum() / max(float(weight.sum()), 1e-6)))
