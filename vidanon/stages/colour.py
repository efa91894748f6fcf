"""Give a new face the colours, the contrast and the light of the one it replaces."""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.stages import segment
from vidanon.types import Bool, Float

LIGHT_SIGMA = 0.16
"""Blur of the light that is carried over from the source, in face widths."""
FOREHEAD_SIGMA = 0.06
"""The same above the brows: what shades a generated forehead is a fringe that is not drawn."""
DARK = 2.0
"""A source less than half as bright as the new face takes contrast away without the limit of the gains."""
DARKEST = 0.03
"""Share of eyes, nose and mouth that counts as their darkest: lashes, pupils, nostrils, what lips enclose."""
FEW = 20
"""Fewer pixels of eyes, nose and mouth do not tell how dark these are."""
LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)
"""How bright RGB is (BT.601), as a matrix."""
_YCC_FROM_RGB = np.array([*LUMA, [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], np.float32)
"""Luma and chroma of JPEG (BT.601), where gain on chroma changes saturation only."""
_GAIN_LOW = np.array([0.5, 0.0, 0.0], np.float32)
"""In haze a face has half the contrast of a generated one. No less, since some sources hardly have brows, and
the new face is to keep its own."""
_GAIN_HIGH = np.array([1.25, 1.0, 1.0], np.float32)
"""Generated faces are colourful enough: with more, lips look painted and the whites of eyes reddish."""


def contrast_between(source: Float, generated: Float, weight: Float, core: Float) -> Float:
    """Return how much more contrast a source has than a new face, beyond what its brightness alone gives.

    How much the luma of a face varies depends on brows and on where the light comes from, too: under dark
    brows or in light from aside, a new face would be drawn in grey for a source in flat light. How far
    lashes, nostrils and the inside of the mouth are below the rest of the face does not, but it does depend
    on eyes. Of these two measures the geometric mean is taken, in which the second counts twice.

    Args:
        source: float32 RGB (h, w, 3), 0..255.
        generated: the same, the new face.
        weight: float32 (h, w), where both show the face.
        core: float32 (h, w), eyes, nose and mouth.

    Returns:
        float32 (3,), of luma and the two chromas.
    """
    share = weight.ravel() / max(float(weight.sum()), 1e-6)
    means, spreads, depths = [], [], []
    for picture in (source, generated):
        ycc = np.asarray(cv2.transform(picture, _YCC_FROM_RGB), np.float32).reshape(-1, 3)
        means.append(share @ ycc)
        spreads.append(np.sqrt(share @ (ycc - means[-1]) ** 2))
        depths.append(_depth(ycc[:, 0], weight.ravel() > 0.5, core.ravel() > 0.5))
    ratio = spreads[0] / np.maximum(spreads[1], 0.03)
    if min(depths) > 0:
        ratio[0] = np.cbrt(ratio[0] * (depths[0] / depths[1]) ** 2)
    return np.asarray(ratio / _brightness(means[0][0], means[1][0]), np.float32)


def _depth(luma: Float, face: Bool, core: Bool) -> float:
    """Return how far the darkest of eyes, nose and mouth are below the face; 0 where they are not seen."""
    dark = luma[face & core]
    if len(dark) < FEW:
        return 0.0
    darkest = max(1, round(DARKEST * len(dark)))
    return float(np.median(luma[face]) - np.partition(dark, darkest)[:darkest].mean())


def _brightness(luma_source: float, luma_generated: float) -> float:
    """Return how much brighter a source is than the new face."""
    return max(luma_source, 1.0) / max(luma_generated, 1.0)


def match_colour(
    source: Float,
    generated: Float,
    weight: Float,
    lit: Float,
    keep: Float,
    above: Float,
    width: float,
    contrast: Float,
) -> tuple[Float, Float]:
    """Find what gives the generated face the source's colours and low-frequency light.

    Args:
        source: float32 RGB (h, w, 3), 0..255.
        generated: the same, the new face.
        weight: float32 (h, w), where both show the face.
        lit: float32 (h, w), where both show skin, that which takes the place of generated hair included.
        keep: float32 (h, w), share of the light that is carried over, 0..1.
        above: float32 (h, w), what lies above the brows, 0..1.
        width: of the face, pixels.
        contrast: float32 (3,), see :func:`contrast_between`.

    Returns:
        matrix float32 (3, 3) and offset float32 (h, w, 3): ``matched = generated @ matrix.T + offset``.
    """
    share = weight.ravel() / max(float(weight.sum()), 1e-6)
    mean_s, mean_g = share @ source.reshape(-1, 3), share @ generated.reshape(-1, 3)
    brightness = _brightness(*(float(_YCC_FROM_RGB[0] @ mean) for mean in (mean_s, mean_g)))
    # In the dark, contrasts are as small as the light: a face out of black is not to shine.
    gain = np.clip(contrast * brightness, _GAIN_LOW * min(1.0, DARK * brightness), _GAIN_HIGH)
    matrix = (np.linalg.inv(_YCC_FROM_RGB) @ (gain[:, None] * _YCC_FROM_RGB)).astype(np.float32)
    base = mean_s - matrix @ mean_g
    residual = source - cv2.transform(generated, np.column_stack([matrix, base]))
    light, close = (
        segment.spread(residual, lit, (sigma * width,), 1e-2) for sigma in (LIGHT_SIGMA, FOREHEAD_SIGMA)
    )
    light = np.clip(light + above[..., None] * (close - light), -60, 60)
    return matrix, (base + keep[..., None] * light).astype(np.float32)
