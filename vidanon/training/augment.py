"""Make generated pictures as poor as real video, and crops as unsteady as real alignment."""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.geometry import compose, invert, picture_from_unit, unit_crop_from_frame
from vidanon.stages.mesh import BROWS, EYES, LIPS, NOSE
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


def relit(image: UInt8, landmarks: Float, random: np.random.Generator) -> UInt8:
    """Light a portrait as rooms do: unevenly, from above so that the eyes lie in shade, or flatly.

    Generated faces are lit as for a photograph; a webcam under a ceiling lamp leaves hollows for eyes.

    Args:
        image: uint8 RGB (128, 128, 3).
        landmarks: float32 (478, 2), unit crop.
        random: decides whether, how and how much.
    """
    points = landmarks * np.float32(CROP_PX) - 0.5
    x = image.astype(np.float32)
    if random.random() < 0.4:  # noise reduction takes the features' edges
        soft = cv2.GaussianBlur(x, (0, 0), random.uniform(1.0, 2.5))
        share = _hull((*EYES, *BROWS, *NOSE, *LIPS), points, 4.0)[..., None] * np.float32(random.random())
        x += share * (soft - x)
    exposure = np.zeros((CROP_PX, CROP_PX), np.float32)
    if random.random() < 0.6:
        cells = int(random.integers(2, 6))
        coarse = random.normal(0, random.uniform(0.1, 0.5), (cells, cells)).astype(np.float32)
        exposure += cv2.resize(coarse, exposure.shape, interpolation=cv2.INTER_CUBIC)
    if random.random() < 0.4:
        exposure += np.float32(random.uniform(-0.9, 0.5)) * _stripe(points.mean(0), random)
    if random.random() < 0.5:
        depth = random.uniform(0.1, 0.9)
        for ids in (EYES[: len(EYES) // 2], EYES[len(EYES) // 2 :]):
            middle = points[list(ids)].mean(0) + random.normal(0, 2, 2)
            shade = _blob(middle, random.uniform(11, 22), random.uniform(6, 14))
            exposure -= np.float32(depth * random.uniform(0.6, 1.0)) * shade
        for ids, most in (((2, 98, 327), 0.6), ((17, 18, 200), 0.4)):  # under the nose, under the lip
            shade = _blob(points[list(ids)].mean(0), random.uniform(6, 14), random.uniform(3, 6))
            exposure -= np.float32(depth * random.uniform(0, most)) * shade
    x *= np.exp(exposure)[..., None]
    return np.asarray(np.clip(x, 0, 255), np.uint8)


def hazed(image: UInt8, random: np.random.Generator) -> UInt8:
    """Change contrast, and now and then sharpen as cameras do; uint8 RGB (128, 128, 3)."""
    x = image.astype(np.float32)
    if random.random() < 0.5:
        middle = x.mean((0, 1)) if random.random() < 0.5 else np.float32(random.uniform(0, 255))
        x = middle + (x - middle) * np.float32(random.uniform(0.4, 1.3))
    if random.random() < 0.25:
        x += np.float32(random.uniform(0.3, 1.5)) * (x - cv2.GaussianBlur(x, (0, 0), random.uniform(0.8, 2)))
    return np.asarray(np.clip(x, 0, 255), np.uint8)


def _hull(ids: tuple[int, ...], points: Float, edge_px: float) -> Float:
    """Return what lies between some landmarks, with a soft border, float32 (128, 128), 0..1."""
    mask = np.zeros((CROP_PX, CROP_PX), np.float32)
    cv2.fillConvexPoly(mask, np.round(cv2.convexHull(points[list(ids)])).astype(np.int32), 1.0)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), edge_px), np.float32)


def _stripe(middle: Float, random: np.random.Generator) -> Float:
    """Return a stripe across a face, as a window or a blind casts light and shadow; (128, 128), 0..1."""
    angle, width_px = random.uniform(0, np.pi), random.uniform(6, 60)
    across = np.array([np.cos(angle), np.sin(angle)]) * random.normal(0, 25)
    along = np.array([-np.sin(angle), np.cos(angle)]) * 3 * CROP_PX
    mask = np.zeros((CROP_PX, CROP_PX), np.float32)
    start, end = (tuple(np.round(middle + across + side * along).astype(int).tolist()) for side in (-1, 1))
    cv2.line(mask, start, end, 1.0, round(width_px))
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), random.uniform(0.7, 8)), np.float32)


def _blob(middle: Float, across_px: float, down_px: float) -> Float:
    """Return a Gaussian bump, float32 (128, 128), 0..1."""
    rows, columns = np.mgrid[0:CROP_PX, 0:CROP_PX].astype(np.float32)
    squared = ((columns - middle[0]) / across_px) ** 2 + ((rows - middle[1]) / down_px) ** 2
    return np.asarray(np.exp(-squared / 2), np.float32)


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
