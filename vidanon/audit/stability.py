"""How steady a face is from frame to frame, beside the source's own unsteadiness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidanon.tally import FacePair
from vidanon.types import Float, UInt8

PATCH_PX = 128
MIN_FRAMES = 8
MIN_MOTION_PX = 0.5
"""A landmark that moves less over a track has no trajectory to follow."""


def flicker(before: UInt8, after: UInt8, box: Float) -> float:
    """Return what changes in a face beyond its motion: mean grey difference (0..255) after optical flow.

    Args:
        before: uint8 RGB (height, width, 3).
        after: the next frame.
        box: float32 (4,), the face, frame pixels.
    """
    import cv2

    first, second = _patch(before, box), _patch(after, box)
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = finder.calc(second, first, np.zeros((PATCH_PX, PATCH_PX, 2), np.float32))
    rows, columns = np.mgrid[0:PATCH_PX, 0:PATCH_PX].astype(np.float32)
    moved = cv2.remap(
        first, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return float(np.abs(moved.astype(np.float32) - second).mean())


def _patch(image: UInt8, box: Float) -> UInt8:
    import cv2

    scale = PATCH_PX / np.maximum(box[2:] - box[:2], 1)
    patch_from_frame = np.array([[scale[0], 0, -scale[0] * box[0]], [0, scale[1], -scale[1] * box[1]]])
    patch = cv2.warpAffine(image, patch_from_frame, (PATCH_PX, PATCH_PX), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), np.uint8)


def trajectory_correlation(pairs: Sequence[FacePair]) -> float | None:
    """Return how well the output's landmarks follow the paths of the source's over one track, -1..1.

    Every coordinate of every landmark is one path; paths are weighted by how far the source moves.
    """
    if len(pairs) < MIN_FRAMES:
        return None
    source, output = (
        np.stack([getattr(pair, name).landmarks.ravel() for pair in pairs]).astype(np.float64)
        for name in ("source", "output")
    )
    source -= source.mean(axis=0)
    output -= output.mean(axis=0)
    spread = source.std(axis=0)
    moving = spread > MIN_MOTION_PX
    if not moving.any():
        return None
    covariance = (source * output).mean(axis=0)[moving]
    correlation = covariance / (spread[moving] * np.maximum(output.std(axis=0)[moving], 1e-6))
    return float((correlation * spread[moving]).sum() / spread[moving].sum())
