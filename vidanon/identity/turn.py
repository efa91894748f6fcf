"""How far a new face is turned otherwise than the source, and what of w or of its landmarks turns it back."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from vidanon.geometry import apply, fit_similarity, picture_from_unit
from vidanon.models.registry import read_tensor
from vidanon.stages.head_pose import HeadPose
from vidanon.types import LANDMARK_COUNT, Float

MOST_DEG = 10.0
"""New faces are off by 6 degrees at most; where landmarks tell of more, they have failed."""
PICTURE_PX = 256
"""Side of the picture in which the rotation of landmarks in unit crops is read."""


def turned_too_far(shown: Float, wanted: Float, size: tuple[int, int], head_pose: HeadPose) -> Float:
    """Compare two heads in pictures of one size.

    Args:
        shown: float32 (478, 2), landmarks of the new face, pixels.
        wanted: float32 (478, 2), landmarks of the source, pixels.
        size: width and height of the pictures, pixels.
        head_pose: reads rotations.

    Returns:
        float32 (3,), pitch, yaw and roll of the new face less those of the source, degrees, cut to
        ``MOST_DEG``.
    """
    ours, theirs = (head_pose(landmarks, *size) for landmarks in (shown, wanted))
    turned = np.degrees(cv2.Rodrigues(ours @ theirs.T)[0]).ravel()
    return np.clip(turned, -MOST_DEG, MOST_DEG).astype(np.float32)


def moved_back(landmarks: Float, turned: Float, head_pose: HeadPose) -> Float:
    """Return how landmarks move when the head turns back.

    Args:
        landmarks: float32 (478, 2), in the unit crop.
        turned: float32 (3,), pitch, yaw and roll, degrees, as of :func:`turned_too_far`.
        head_pose: reads rotations.

    Returns:
        float32 (478, 2), in the unit crop, 0 on average: nose and brows move one way, the outline the other.
        Irises do not move, they have their place between the corners of the eyes.
    """
    placed = apply(picture_from_unit(PICTURE_PX), landmarks)
    seen = head_pose.points @ head_pose(placed, PICTURE_PX, PICTURE_PX).T
    back = cv2.Rodrigues(-np.radians(turned.astype(np.float64)))[0]
    moved_cm = (seen @ back.T - seen)[:, :2]
    unit_from_cm = fit_similarity(seen[:, :2], landmarks[: len(seen)])
    moved = np.zeros((LANDMARK_COUNT, 2), np.float32)
    moved[: len(seen)] = (moved_cm - moved_cm.mean(axis=0)) @ unit_from_cm[:, :2].T
    return moved


@lru_cache(maxsize=1)
def turn_slopes() -> Float:
    """Return the change of w that turns a face by a degree of pitch or yaw, float32 (2, 512)."""
    return read_tensor("mapper.safetensors", "mapper.turn.slopes")
