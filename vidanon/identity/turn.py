"""How far a new face is turned otherwise than the source, and what of w turns it back."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from vidanon.models.registry import weights_path
from vidanon.stages.head_pose import HeadPose
from vidanon.types import Float

MOST_DEG = 10.0
"""New faces are off by 6 degrees at most; where landmarks tell of more, they have failed."""
_SIDE_PX = 256  # any: rotation does not depend on it


def turned_too_far(shown: Float, wanted: Float, head_pose: HeadPose) -> Float:
    """Compare two heads in FFHQ alignment.

    Args:
        shown: float32 (478, 2), landmarks of the new face, in the unit crop.
        wanted: the same of the source.
        head_pose: reads rotations.

    Returns:
        float32 (2,), pitch and yaw of the new face less those of the source, degrees, cut to ``MOST_DEG``.
    """
    pixels = ((landmarks * _SIDE_PX - 0.5).astype(np.float32) for landmarks in (shown, wanted))
    ours, theirs = (head_pose(points, _SIDE_PX, _SIDE_PX) for points in pixels)
    pitch, yaw, _ = np.degrees(cv2.Rodrigues(ours @ theirs.T)[0]).ravel()
    return np.clip(np.array([pitch, yaw], np.float32), -MOST_DEG, MOST_DEG)


@lru_cache(maxsize=1)
def turn_slopes() -> Float:
    """Return the change of w that turns a face by a degree of pitch or yaw, float32 (2, 512)."""
    from safetensors.numpy import load_file

    slopes: Float = load_file(weights_path("mapper.safetensors"))["mapper.turn.slopes"]
    return slopes
