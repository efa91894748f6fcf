"""How far a new face is turned otherwise than the source, and what of w turns it back."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from vidanon.geometry import apply, picture_from_unit
from vidanon.models.registry import weights_path
from vidanon.stages.head_pose import HeadPose
from vidanon.types import Float

MOST_DEG = 10.0
"""New faces are off by 6 degrees at most; where landmarks tell of more, they have failed."""


def turned_too_far(shown: Float, side_px: int, wanted: Float, head_pose: HeadPose) -> Float:
    """Compare two heads in FFHQ alignment.

    Args:
        shown: float32 (478, 2), landmarks of the new face, pixels of its picture.
        side_px: of that picture.
        wanted: float32 (478, 2), landmarks of the source, in the unit crop.
        head_pose: reads rotations.

    Returns:
        float32 (2,), pitch and yaw of the new face less those of the source, degrees, cut to ``MOST_DEG``.
    """
    placed = apply(picture_from_unit(side_px), wanted)
    ours, theirs = (head_pose(landmarks, side_px, side_px) for landmarks in (shown, placed))
    pitch, yaw, _ = np.degrees(cv2.Rodrigues(ours @ theirs.T)[0]).ravel()
    return np.clip(np.array([pitch, yaw], np.float32), -MOST_DEG, MOST_DEG)


@lru_cache(maxsize=1)
def turn_slopes() -> Float:
    """Return the change of w that turns a face by a degree of pitch or yaw, float32 (2, 512)."""
    from safetensors import safe_open

    with safe_open(weights_path("mapper.safetensors"), "numpy") as weights:
        slopes: Float = weights.get_tensor("mapper.turn.slopes")
    return slopes
