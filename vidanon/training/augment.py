"""Make generated pictures as poor as real video, and crops as unsteady as real alignment."""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.geometry import compose, invert, picture_from_unit, unit_crop_from_frame
from vidanon.stages.synthesize import as_input
from vidanon.training.data import CROP_PX
from vidanon.types import Float, UInt8

SHIFT, SCALE, TILT = 0.015, 0.03, np.radians(2.0)
"""Standard deviations of the alignment's error: crop sides, factor, radians."""


def jitter(random: np.random.Generator) -> Float:
    """Draw a small similarity (2, 3) of the unit crop."""
    scale = 1 + SCALE * random.standard_normal()
    tilt = TILT * random.standard_normal()
    cos, sin = scale * np.cos(tilt), scale * np.sin(tilt)
    shift = 0.5 + SHIFT * random.standard_normal(2) - 0.5 * np.array([cos - sin, sin + cos])
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]], np.float32)


def moved(random: np.random.Generator, scale: tuple[float, float], tilt: float, shift: float) -> Float:
    """Draw a similarity (2, 3) of the pixels of a portrait, mirrored every second time.

    Args:
        random: what draws.
        scale: mean and spread of the logarithm of size.
        tilt: spread, radians.
        shift: spread, crop sides.
    """
    size, turn = np.exp(random.normal(*scale)), random.normal(0, tilt)
    cos, sin = size * np.cos(turn), size * np.sin(turn)
    similarity = np.array([[cos, -sin, 0], [sin, cos, 0]], np.float32)
    if random.random() < 0.5:
        similarity[:, 0] *= -1
    similarity[:, 2] = 0.5 + random.normal(0, shift, 2) - similarity[:, :2] @ (0.5, 0.5)
    pixels = picture_from_unit(CROP_PX)
    return compose(pixels, compose(similarity, invert(pixels)))


def attribute_crop(picture: UInt8, landmarks: Float, random: np.random.Generator | None) -> Float:
    """Return what the attribute encoder sees of a sample.

    Args:
        picture: uint8 RGB (128, 128, 3).
        landmarks: float32 (478, 2), unit crop; the crop is aligned anew by them, as real frames are.
        random: None for the plain crop.

    Returns:
        float32 (3, 128, 128), [-1, 1].
    """
    to_unit = unit_crop_from_frame(landmarks)
    if random is not None:
        to_unit = compose(jitter(random), to_unit)
    view = picture_from_unit(CROP_PX)
    matrix = compose(view, compose(to_unit, invert(view)))
    crop = cv2.warpAffine(
        picture, matrix, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    if random is not None:
        crop = degrade(np.asarray(crop, np.uint8), random)
    return as_input(np.asarray(crop, np.uint8))


def degrade(image: UInt8, random: np.random.Generator) -> UInt8:
    """Lose detail, colour and light, and put something in front now and then."""
    if random.random() < 0.25:
        image = _occlude(image, random)
    return spoil(image, random)


def spoil(image: UInt8, random: np.random.Generator) -> UInt8:
    """Lose detail, colour and light; nothing moves. uint8 RGB (128, 128, 3)."""
    if random.random() < 0.5:
        side = int(random.integers(32, CROP_PX))
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, (CROP_PX, CROP_PX), interpolation=cv2.INTER_LINEAR), np.uint8)
    if random.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), random.uniform(0.4, 1.6)), np.uint8)
    x = image.astype(np.float32)
    if random.random() < 0.7:
        gain = np.exp(random.normal(0, 0.15)) * np.exp(random.normal(0, 0.08, 3)).astype(np.float32)
        x = 255 * np.clip(x / 255 * gain, 0, 1) ** np.float32(np.exp(random.normal(0, 0.2)))
    if random.random() < 0.06:
        x = np.repeat(x.mean(2, keepdims=True), 3, 2)
    if random.random() < 0.4:
        x += random.normal(0, random.uniform(1, 10), x.shape)
    image = np.clip(x, 0, 255).astype(np.uint8)
    if random.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(25, 90))]
        image = np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR), np.uint8)
    return image


def _occlude(image: UInt8, random: np.random.Generator) -> UInt8:
    """Paint a thick stroke of one colour, often the skin's, somewhere: a hand, a microphone, a strand."""
    image = image.copy()
    corner = random.uniform(0, CROP_PX, 2)
    end = corner + random.normal(0, 40, 2)
    colour = (
        image[tuple(random.integers(0, CROP_PX, 2))] if random.random() < 0.7 else random.integers(0, 255, 3)
    )
    start, stop = (tuple(int(v) for v in point) for point in (corner, end))
    cv2.line(image, start, stop, [int(v) for v in colour], int(random.integers(4, 26)))
    return image
