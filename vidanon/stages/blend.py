"""Put the warped face into the frame: mask, colour and light, feathered seam.

All work happens on a region of interest around the face. Mask, statistics and light are smooth, so they
are computed on a small copy of the region; only the last two steps touch every pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.stages.mesh import FACE_OVAL
from vidanon.types import Bool, Float, UInt8

GROW = 0.04
"""The mask reaches past the face oval by this share of the face width."""
HAIR_LAB = 26.0
"""Distance in CIE Lab from the skin at which a forehead pixel counts as hair."""
LIGHT_SIGMA = 0.16
"""Blur of the light that is carried over from the source, in face widths."""
LIGHT_KEEP = 0.8
SMALL_PX = 160
"""Longer side of the small copy."""
_LAB_WEIGHT = np.array([0.7, 1.0, 1.0], np.float32)
_YCC_FROM_RGB = np.array(
    [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], np.float32
)
"""Luma and chroma of JPEG (BT.601), where gain on chroma changes saturation only."""
_GAIN_LOW = np.array([0.75, 0.0, 0.0], np.float32)
_GAIN_HIGH = np.array([1.25, 1.3, 1.3], np.float32)


def face_width(landmarks: Float) -> float:
    """Distance between the two sides of the face oval, pixels, or its height where that is larger."""
    extent = np.ptp(landmarks[list(FACE_OVAL)], axis=0)
    return max(float(extent[0]), float(extent[1]) * 0.75, 1.0)


def region_of_interest(landmarks: Float, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Return (x0, y0, x1, y1) around a face with room for forehead and feather; None outside the frame."""
    oval = landmarks[list(FACE_OVAL)]
    margin = 0.35 * face_width(landmarks)
    x0, y0 = np.maximum(np.floor(oval.min(0) - margin).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(oval.max(0) + margin).astype(int), (shape[1], shape[0]))
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    return int(x0), int(y0), int(x1), int(y1)


def _outline(landmarks: Float, forehead: float) -> tuple[Float, Float]:
    """Return the grown oval and the same with the forehead raised, both (36, 2) frame pixels."""
    oval = landmarks[list(FACE_OVAL)]
    center = oval.mean(0)
    width = face_width(landmarks)
    outward = oval - center
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
    grown = oval + outward * (GROW * width)
    up = landmarks[10] - landmarks[152]
    up = up / max(float(np.linalg.norm(up)), 1e-6)
    height = np.clip((outward @ up), 0, 1)[:, None]
    raised = grown + up * (forehead * width) * height
    return np.asarray(grown, np.float32), np.asarray(raised, np.float32)


def _fill(polygon: Float, shape: tuple[int, ...]) -> Float:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return np.asarray(mask / 255, np.float32)


def _lab(image: Float) -> Float:
    return np.asarray(cv2.cvtColor(image / 255, cv2.COLOR_RGB2LAB), np.float32)


def _skin_likeness(lab: Float, sure: Bool) -> Float:
    distance = np.linalg.norm((lab - np.median(lab[sure], axis=0)) * _LAB_WEIGHT, axis=2)
    return np.asarray(np.clip(1.6 - distance / HAIR_LAB, 0, 1), np.float32)


def face_mask(source: Float, generated: Float, landmarks: Float, forehead: float) -> tuple[Float, Float]:
    """Return the grown oval and the whole mask with the forehead, both float32 (h, w), 0..1.

    Above the oval the source's hair stays in front and the generated hair stays out: a pixel belongs to
    the mask only as far as both faces show skin there.

    Args:
        source: float32 RGB (h, w, 3), 0..255.
        generated: the same, the new face in the same geometry.
        landmarks: float32 (478, 2), pixels of these pictures.
        forehead: how far the mask reaches above the face oval, in face widths.
    """
    oval, raised = _outline(landmarks, forehead)
    inner, whole = _fill(oval, source.shape), _fill(raised, source.shape)
    sure = inner > 0.99
    if not sure.any():
        return inner, whole
    skin = np.minimum(_skin_likeness(_lab(source), sure), _skin_likeness(_lab(generated), sure))
    skin = cv2.GaussianBlur(skin, (0, 0), max(0.012 * face_width(landmarks), 0.5))
    return inner, np.maximum(inner, whole * skin)


def match_colour(source: Float, generated: Float, weight: Float, sigma_px: float) -> tuple[Float, Float]:
    """Find what gives the generated face the source's colour statistics and low-frequency light.

    Args:
        source: float32 RGB (h, w, 3), 0..255.
        generated: the same, the new face.
        weight: float32 (h, w), where both show the face.
        sigma_px: blur of the light that is carried over.

    Returns:
        matrix float32 (3, 3) and offset float32 (h, w, 3): ``matched = generated @ matrix.T + offset``.
    """
    share = (weight / max(float(weight.sum()), 1e-6))[..., None]
    mean_s, mean_g = (source * share).sum((0, 1)), (generated * share).sum((0, 1))
    var_s = ((((source - mean_s) @ _YCC_FROM_RGB.T) ** 2) * share).sum((0, 1))
    var_g = ((((generated - mean_g) @ _YCC_FROM_RGB.T) ** 2) * share).sum((0, 1))
    gain = np.clip(np.sqrt(var_s / (var_g + 1e-3)), _GAIN_LOW, _GAIN_HIGH)
    matrix = (np.linalg.inv(_YCC_FROM_RGB) @ (gain[:, None] * _YCC_FROM_RGB)).astype(np.float32)
    base = mean_s - matrix @ mean_g
    residual = (source - generated @ matrix.T - base) * weight[..., None]
    light = cv2.GaussianBlur(np.dstack([residual, weight]).astype(np.float32), (0, 0), max(sigma_px, 0.5))
    light = np.clip(light[..., :3] / np.maximum(light[..., 3:], 1e-2), -60, 60)
    return matrix, (base + LIGHT_KEEP * light).astype(np.float32)


def blend(
    image: UInt8,
    warped: UInt8,
    landmarks: Float,
    region: tuple[int, int, int, int],
    forehead: float,
    feather: float,
) -> None:
    """Blend a warped face into the frame, in place.

    Args:
        image: uint8 (height, width, 3), changed in place inside ``region`` only.
        warped: uint8, the new face already in the frame's geometry, the size of ``region``.
        landmarks: float32 (478, 2), frame pixels, outline of the face to cover.
        region: (x0, y0, x1, y1).
        forehead: how far the mask reaches above the face oval, in face widths.
        feather: softness of the seam, in face widths.
    """
    x0, y0, x1, y1 = region
    patch = image[y0:y1, x0:x1]
    full = (x1 - x0, y1 - y0)
    scale = min(1.0, SMALL_PX / max(full))
    small = (max(2, round(full[0] * scale)), max(2, round(full[1] * scale)))
    ratio = np.array([small[0] / full[0], small[1] / full[1]], np.float32)
    points = ((landmarks - (x0, y0) + 0.5) * ratio - 0.5).astype(np.float32)
    source = cv2.resize(patch, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    generated = cv2.resize(warped, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    width = face_width(points)
    inner, whole = face_mask(source, generated, points, forehead)
    matrix, offset = match_colour(source, generated, inner, LIGHT_SIGMA * width)
    soft = cv2.GaussianBlur(whole, (0, 0), max(feather * width / 2, 0.6))
    alpha = cv2.resize(np.clip(soft * 2 - 0.6, 0, 1), full, interpolation=cv2.INTER_LINEAR)
    light = cv2.resize(offset, full, interpolation=cv2.INTER_LINEAR)
    matched = cv2.add(cv2.transform(warped.astype(np.float32), matrix), light)
    patch[:] = cv2.blendLinear(patch.astype(np.float32), matched, 1 - alpha, alpha).clip(0, 255).round()
