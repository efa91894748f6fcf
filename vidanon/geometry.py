"""Affine transforms and face geometry in numpy. No images, no networks.

Convention: a transform ``a_from_b`` is float32 (2, 3) and maps column points (x, y) of ``b`` to ``a``:
``p_a = M[:, :2] @ p_b + M[:, 2]``. The *unit crop* is the FFHQ-aligned square around a head, [0, 1] x [0, 1];
``crop_from_frame`` maps frame pixels to it, and a picture of ``size`` pixels samples it at
``(i + .5) / size`` (pixel centres).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vidanon.types import Float

LEFT_EYE_IDS = (33, 133, 159, 145)
RIGHT_EYE_IDS = (263, 362, 386, 374)
MOUTH_CORNER_IDS = (61, 291)


def apply(transform: Float, points: Float) -> Float:
    """Map points (..., 2) by one transform (2, 3)."""
    return points @ transform[:, :2].T + transform[:, 2]


def apply_each(transforms: Float, points: Float) -> Float:
    """Map points (n, m, 2), each m of them by their own transform of (n, 2, 3)."""
    linear, offset = transforms[:, :, :2], transforms[:, :, 2]
    return np.asarray(points @ linear.transpose(0, 2, 1) + offset[:, None], np.float32)


def invert(transform: Float) -> Float:
    """Return ``b_from_a`` for ``a_from_b``."""
    linear = np.linalg.inv(transform[:, :2])
    return np.concatenate([linear, -linear @ transform[:, 2:]], axis=1).astype(np.float32)


def compose(a_from_b: Float, b_from_c: Float) -> Float:
    """Return ``a_from_c``."""
    linear = a_from_b[:, :2] @ b_from_c[:, :2]
    offset = a_from_b[:, :2] @ b_from_c[:, 2] + a_from_b[:, 2]
    return np.concatenate([linear, offset[:, None]], axis=1).astype(np.float32)


def pixels_around(
    points: Float, shape: tuple[int, ...], beyond: int = 1
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the part of a picture in which points lie.

    Args:
        points: float32 (n, 2), pixels.
        shape: of the picture, (height, width, ...).
        beyond: 1 for points that are pixels; 0 for corners, which lie between them.

    Returns:
        First column and row, and those one past the last, (2,) each; one pixel at least, in the picture.
    """
    limit = np.array(shape[1::-1])
    low = np.clip(np.floor(points.min(axis=0)).astype(np.intp), 0, limit - 1)
    return low, np.clip(np.ceil(points.max(axis=0)).astype(np.intp) + beyond, low + 1, limit)


def fit_similarity(source: Float, target: Float) -> Float:
    """Least-squares similarity (Umeyama 1991, without reflection), target_from_source.

    Args:
        source: float32 (n, 2).
        target: float32 (n, 2).

    Returns:
        float32 (2, 3).
    """
    mean_source, mean_target = source.mean(0), target.mean(0)
    a, b = source - mean_source, target - mean_target
    norm = max(float((a * a).sum()), 1e-9)
    cos = float((a * b).sum()) / norm
    sin = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / norm
    linear = np.array([[cos, -sin], [sin, cos]], np.float32)
    offset = mean_target - linear @ mean_source
    return np.concatenate([linear, offset[:, None]], axis=1).astype(np.float32)


def fit_affine(source: Float, target: Float) -> Float:
    """Least-squares affine transform, target_from_source.

    Args:
        source: float32 (n, 2), n >= 3, not all on one line.
        target: float32 (n, 2).

    Returns:
        float32 (2, 3).
    """
    ones = np.column_stack([source, np.ones(len(source), source.dtype)])
    return np.linalg.lstsq(ones, target, rcond=None)[0].T.astype(np.float32)


def nose_to_corner(landmarks: Float) -> float:
    """Return how far the root of the nose lies from the nearer outer corner of an eye, in their distance.

    It is .5 from the front and less the more a head is turned; negative past profile.

    Args:
        landmarks: float32 (478, 2), pixels.
    """
    across = landmarks[263] - landmarks[33]
    place = float((landmarks[168] - landmarks[33]) @ across) / max(float(across @ across), 1e-12)
    return min(place, 1 - place)


def picture_from_unit(size: int) -> Float:
    """Return the transform from the unit crop to pixel centres of a ``size`` x ``size`` picture."""
    return np.array([[size, 0, -0.5], [0, size, -0.5]], np.float32)


def unit_crop_from_frame(landmarks: Float) -> Float:
    """Return the FFHQ alignment (Karras et al. 2019, ``dataset_tool``) of a face.

    Args:
        landmarks: float32 (478, 2), MediaPipe's face mesh, frame pixels.

    Returns:
        float32 (2, 3), a similarity: frame pixels to the unit crop.
    """
    left = landmarks[list(LEFT_EYE_IDS)].mean(axis=0)
    right = landmarks[list(RIGHT_EYE_IDS)].mean(axis=0)
    mouth = landmarks[list(MOUTH_CORNER_IDS)].mean(axis=0)
    eyes = (left + right) / 2
    eye_to_eye = right - left
    eye_to_mouth = mouth - eyes
    x = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]], np.float32)
    x = x / max(float(np.hypot(*x)), 1e-6)
    x = x * max(float(np.hypot(*eye_to_eye)) * 2.0, float(np.hypot(*eye_to_mouth)) * 1.8)
    y = np.array([-x[1], x[0]], np.float32)
    corner = eyes + eye_to_mouth * 0.1 - x - y
    frame_from_unit = np.stack([2 * x, 2 * y, corner], axis=1).astype(np.float32)
    return invert(frame_from_unit)
