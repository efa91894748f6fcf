"""Put the warped face into the frame: mask, colour and light, feathered seam.

All work happens on a region of interest around the face.
"""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.stages.mesh import FACE_OVAL
from vidanon.types import Float, UInt8

GROW = 0.04
"""The mask reaches past the face oval by this share of the face width."""
HAIR_LAB = 26.0
"""Distance in CIE Lab from the skin at which a forehead pixel counts as hair."""
LIGHT_SIGMA = 0.16
"""Blur of the light that is carried over from the source, in face widths."""
LIGHT_KEEP = 0.8
_LAB_WEIGHT = np.array([0.7, 1.0, 1.0], np.float32)


def face_width(landmarks: Float) -> float:
    """Distance between the two sides of the face oval, pixels, or its height where that is larger."""
    oval = landmarks[list(FACE_OVAL)]
    return float(max(np.ptp(oval[:, 0]), np.ptp(oval[:, 1]) * 0.75, 1.0))


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
    return grown.astype(np.float32), raised.astype(np.float32)


def _fill(polygon: Float, region: tuple[int, int, int, int]) -> Float:
    x0, y0, x1, y1 = region
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    points = np.round((polygon - (x0, y0)) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) / 255


def _skin_likeness(lab: Float, skin: Float) -> Float:
    distance = np.linalg.norm((lab - skin) * _LAB_WEIGHT, axis=2)
    return np.clip(1.6 - distance / HAIR_LAB, 0, 1).astype(np.float32)


def _lab(image: UInt8) -> Float:
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def _rgb(lab: Float) -> Float:
    return np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * np.float32(255)


def _match_colour(generated: Float, source: Float, weight: Float, sigma_px: float) -> Float:
    """Give the generated face the source's colour statistics and low-frequency light (Lab, in and out)."""
    total = max(float(weight.sum()), 1e-6)
    mean_g = (generated * weight[..., None]).sum((0, 1)) / total
    mean_s = (source * weight[..., None]).sum((0, 1)) / total
    std_g = np.sqrt(((generated - mean_g) ** 2 * weight[..., None]).sum((0, 1)) / total) + 1e-3
    std_s = np.sqrt(((source - mean_s) ** 2 * weight[..., None]).sum((0, 1)) / total)
    gain = np.clip(std_s / std_g, (0.75, 0.0, 0.0), (1.25, 1.3, 1.3))
    matched = (generated - mean_g) * gain + mean_s
    step = max(1, int(sigma_px / 4))
    size = (max(2, weight.shape[1] // step), max(2, weight.shape[0] // step))
    stacked = np.dstack([(source - matched) * weight[..., None], weight]).astype(np.float32)
    small = cv2.resize(stacked, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(sigma_px / step, 0.5))
    light = small[..., :3] / np.maximum(small[..., 3:], 1e-2)
    light = cv2.resize(light, (weight.shape[1], weight.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(matched + LIGHT_KEEP * np.clip(light, -25, 25), np.float32)


def face_mask(
    source_lab: Float,
    generated_lab: Float,
    landmarks: Float,
    region: tuple[int, int, int, int],
    forehead: float,
) -> tuple[Float, Float]:
    """Return the hard inner oval and the whole mask with the forehead, float32 (h, w), 0..1.

    Above the oval the source's hair stays in front and the generated hair stays out: a pixel belongs to
    the mask only as far as both faces show skin there.
    """
    oval, raised = _outline(landmarks, forehead)
    inner = _fill(oval, region)
    whole = _fill(raised, region)
    sure = inner > 0.99
    if not sure.any():
        return inner, whole
    skin_s, skin_g = np.median(source_lab[sure], axis=0), np.median(generated_lab[sure], axis=0)
    skin = np.minimum(_skin_likeness(source_lab, skin_s), _skin_likeness(generated_lab, skin_g))
    skin = cv2.GaussianBlur(skin, (0, 0), max(0.012 * face_width(landmarks), 0.5))
    return inner, np.maximum(inner, whole * skin)


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
    width = face_width(landmarks)
    source_lab, generated_lab = _lab(patch), _lab(warped)
    inner, whole = face_mask(source_lab, generated_lab, landmarks, region, forehead)
    matched = _match_colour(generated_lab, source_lab, inner, LIGHT_SIGMA * width)
    soft = cv2.GaussianBlur(whole, (0, 0), max(feather * width / 2, 0.6))
    alpha = np.clip(soft * 2 - 0.6, 0, 1)[..., None]
    blended = _rgb(matched) * alpha + patch.astype(np.float32) * (1 - alpha)
    patch[:] = np.round(blended).astype(np.uint8)
