"""A bearded man's new beard: darker where his own is, and with his own hairs.

The beard of a new face is often sparse, fair or grey, and one that ends where the source's went on leaves the
jaw bare between tufts of his own. So what is drawn where the source has a beard is darkened, part of the way
to how dark that is, and its finest detail is taken from there. Shape, colour and light stay the new face's.
"""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.stages import segment
from vidanon.stages.colour import LUMA
from vidanon.stages.outline import face_width, height_above
from vidanon.types import Float, UInt8

HAIRS = 0.9
"""Share of the finest detail that is the source's, however dark the beard is drawn. Hairs alone change no
recogniser's verdict, and without them a dark jaw looks unwashed."""
HAIR_SIGMA = 0.02
"""What is finer counts as hairs, face widths."""
DARKEST = 0.3
"""No more is aimed at, as a share of the new face's brightness."""
BEARD_FROM, BEARD_SURE = 0.3, 0.6
"""Chances of beard or hair between which its share grows from 0 to 1."""
UNDER_NOSE = 2
"""The landmark under the nose; what is above its height is no beard."""
TOP_EDGE, SOFT, EVEN_SIGMA = 0.05, 0.02, 0.03
"""Height over which it begins, blur of its border, and blur of what is compared, face widths."""


def beard_shares(
    source: Float, drawn: Float, parts: Float, landmarks: Float, strength: float
) -> tuple[Float, Float]:
    """Find where and how a new face is given the source's beard.

    Args:
        source: float32 RGB (h, w, 3), 0..255, a bearded man.
        drawn: the same, the new face in its place.
        parts: float32 (h, w, 8), part chances of the source. The sides of a full beard are taken for hair.
        landmarks: float32 (478, 2), pixels of these.
        strength: share of the way to the source's darkness, 0..1.

    Returns:
        What the new face's brightness is multiplied by, and the share of its finest detail that is to be the
        source's; float32 (h, w), 0..1.
    """
    width = face_width(landmarks)
    not_lips = 1 - segment.lips(landmarks, parts.shape)
    below_nose = segment.ramp(-height_above(landmarks, parts.shape, (UNDER_NOSE,)), 0, TOP_EDGE)
    chance = parts[..., segment.BEARD] + parts[..., segment.HAIR]
    beard = segment.ramp(chance, BEARD_FROM, BEARD_SURE) * below_nose * not_lips

    def even(picture: Float) -> Float:
        light = cv2.transform(picture, LUMA) * beard
        return np.asarray(cv2.GaussianBlur(light, (0, 0), EVEN_SIGMA * width), np.float32)

    ratio = np.clip(even(source) / np.maximum(even(drawn), 1e-3), DARKEST, 1)
    soft = np.asarray(cv2.GaussianBlur(beard, (0, 0), SOFT * width) * not_lips, np.float32)
    gain = np.asarray(1 - np.float32(strength) * soft * (1 - ratio), np.float32)
    return gain, np.float32(HAIRS) * soft


def with_hairs(image: Float, source: UInt8, share: Float, width_px: float) -> UInt8:
    """Give a picture the finest detail of another.

    Args:
        image: float32 RGB (h, w, 3), 0..255.
        source: uint8 RGB (h, w, 3).
        share: float32 (h, w), of that detail, 0..1.
        width_px: of the face.

    Returns:
        uint8 RGB (h, w, 3).
    """
    difference = cv2.subtract(image, source, dtype=cv2.CV_32F)
    fine = difference - cv2.GaussianBlur(difference, (0, 0), HAIR_SIGMA * width_px)
    return np.asarray(cv2.subtract(image, share[..., None] * fine, dtype=cv2.CV_8U), np.uint8)
