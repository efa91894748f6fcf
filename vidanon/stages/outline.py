"""The outline of a face: its width, grown, filled, and how high pixels lie along the face."""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.stages.mesh import BRIDGE, BROWS, FACE_OVAL, SIDES
from vidanon.types import Float

GROW = 0.04
"""The mask reaches past the face oval by this share of the face width."""


def face_width(landmarks: Float) -> float:
    """Distance between the two sides of the face oval, pixels, or its height where that is larger."""
    return float(_width(landmarks[list(FACE_OVAL)]))


def _width(oval: Float) -> Float:
    """Return the same of ovals (..., 36, 2)."""
    extent = np.ptp(oval, axis=-2)
    return np.asarray(np.maximum(np.maximum(extent[..., 0], extent[..., 1] * 0.75), 1.0), np.float32)


def outline(landmarks: Float) -> Float:
    """Return the outline of what is covered whatever the source's forehead and beard are.

    Args:
        landmarks: float32 or float16 (..., 478, 2), pixels.

    Returns:
        float32 (..., 36, 2), pixels.
    """
    return grown_outline(landmarks, GROW)


def half_widths(landmarks: Float) -> Float:
    """Return how far the two ``SIDES`` of a face (478, 2) lie from the root of the nose, (2,), pixels."""
    return np.asarray(np.linalg.norm(landmarks[list(SIDES)] - landmarks[BRIDGE], axis=1), np.float32)


def grown_outline(landmarks: Float, grow: float, up: float = 0.0, down: float = 0.0) -> Float:
    """Return the face oval grown, its forehead raised and its chin lowered.

    Args:
        landmarks: float32 or float16 (..., 478, 2), pixels.
        grow: so far outwards, face widths; negative for inwards.
        up: so far the forehead, face widths.
        down: so far the chin, face widths.

    Returns:
        float32 (..., 36, 2), pixels.
    """
    oval = np.asarray(landmarks[..., list(FACE_OVAL), :], np.float32)
    outward = unit(oval - oval.mean(-2, keepdims=True))
    top, chin = (oval[..., [FACE_OVAL.index(point)], :] for point in (10, 152))
    upward = unit(top - chin)
    height = (outward * upward).sum(-1, keepdims=True)
    moved = up * np.clip(height, 0, 1) - down * np.clip(-height, 0, 1)
    width = _width(oval)[..., None, None]
    return np.asarray(oval + width * (grow * outward + moved * upward), np.float32)


def unit(vectors: Float) -> Float:
    """Scale vectors, float32 (..., n), to unit length."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6), np.float32)


def grown(mask: Float, edge_px: float) -> Float:
    """Add a border to a mask, float32 (h, w)."""
    reach = max(1, round(edge_px))
    return np.asarray(cv2.dilate(mask, np.ones((2 * reach + 1,) * 2, np.uint8)), np.float32)


def filled(polygon: Float, shape: tuple[int, ...]) -> Float:
    """Return what a polygon covers, float32 (h, w), 0..1.

    Args:
        polygon: float32 (n, 2), pixels.
        shape: of the picture.
    """
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return np.asarray(mask / 255, np.float32)


def filled_hull(points: Float, shape: tuple[int, ...]) -> Float:
    """Return what the convex hull of float32 (n, 2) covers, see :func:`filled`."""
    return filled(np.asarray(cv2.convexHull(points.astype(np.float32))[:, 0], np.float32), shape)


def brow_mask(landmarks: Float, shape: tuple[int, ...]) -> Float:
    """Return where the brows lie, float32 (h, w), 0..1.

    Args:
        landmarks: float32 (478, 2), pixels.
        shape: of the picture.
    """
    half = len(BROWS) // 2
    right, left = (filled_hull(landmarks[list(ids)], shape) for ids in (BROWS[:half], BROWS[half:]))
    return np.maximum(right, left)


def height_above(landmarks: Float, shape: tuple[int, ...], points: tuple[int, ...]) -> Float:
    """Return how far every pixel lies above the highest of some landmarks, along the face.

    Args:
        landmarks: float32 (478, 2), pixels.
        shape: of the picture.
        points: numbers of landmarks.

    Returns:
        float32 (h, w), face widths.
    """
    up = unit(landmarks[10] - landmarks[152])
    rows, columns = np.ogrid[0 : shape[0], 0 : shape[1]]
    height = columns * up[0] + rows * up[1] - float((landmarks[list(points)] @ up).max())
    return np.asarray(height / face_width(landmarks), np.float32)
