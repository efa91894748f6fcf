"""Let a new face show its teeth where the source does.

The mapper follows the outline of a mouth, but not what is in it: of how bright the inside is, which tells a
grin from a shout, it passed on nothing (correlation .1 over 750 drawn faces with open mouths). Along one
direction of w mouths become brighter or darker inside, see :mod:`vidanon.training.teeth`. Contrast and colour
of the face change a little with it, so only what is between the lips is taken from a second picture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from vidanon.identity.shade import mouth_opening, mouth_shade
from vidanon.models.registry import read_tensor
from vidanon.stages.mesh import INNER_LIPS
from vidanon.stages.outline import filled
from vidanon.types import Float, UInt8

OPEN = (0.02, 0.045)
"""How far the lips are apart, heights of the face, where teeth begin to count and where they fully do."""
OPEN_PX = (1.5, 3.0)
"""The same in pixels of what was filmed: of less nothing can be seen."""
WORTH, MOST = 0.08, 0.6
"""Shades of which less is lacking are left as they are, and no mouth is made brighter or darker by more."""
SOFT = 0.005
"""Blur of the border of what is taken from it, sides of the picture."""


class Teeth(NamedTuple):
    """What is seen of a source's teeth in one frame.

    Attributes:
        shade: of the inside of the mouth, see :func:`vidanon.identity.shade.mouth_shade`.
        share: how much it counts, 0..1.
    """

    shade: float = 0.0
    share: float = 0.0


def teeth_of(image: UInt8, landmarks: Float) -> Teeth:
    """Look at a source's mouth.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    opening, height_px = mouth_opening(landmarks), float(np.hypot(*(landmarks[152] - landmarks[10])))
    share = float(np.interp(opening, OPEN, (0, 1)) * np.interp(opening * height_px, OPEN_PX, (0, 1)))
    shade = mouth_shade(image, landmarks) if share > 0 else float("nan")
    return Teeth(shade, share) if np.isfinite(shade) else Teeth()


def with_teeth(
    picture: UInt8, w: Float, landmarks: Float, wanted: Teeth, draw: Callable[[Float, Float], UInt8]
) -> UInt8:
    """Return a picture of a new face that shows as much of its teeth as the source.

    Args:
        picture: uint8 RGB (size, size, 3).
        w: float32 (512,), of which it is.
        landmarks: float32 (478, 2), in it, pixels.
        wanted: what is seen of the source's.
        draw: makes the picture of another w; it has to show what is between some points (n, 2) only.

    Returns:
        uint8 RGB (size, size, 3); ``picture`` itself where nothing is lacking.
    """
    lacking = wanted.share * (wanted.shade - mouth_shade(picture, landmarks)) if wanted.share > 0 else 0.0
    if not abs(lacking) > WORTH:  # nor where the new face has closed lips
        return picture
    lips, sigma_px = landmarks[list(INNER_LIPS)], max(SOFT * len(picture), 0.5)
    around = np.concatenate([lips - 4 * sigma_px, lips + 4 * sigma_px])
    other = draw(w + np.float32(np.clip(lacking, -MOST, MOST)) * teeth_direction(), around)
    low = np.maximum(np.floor(around.min(axis=0)).astype(int), 0)
    high = np.maximum(np.ceil(around.max(axis=0)).astype(int) + 1, low)
    result, place = picture.copy(), (slice(low[1], high[1]), slice(low[0], high[0]))
    patch = picture[place]
    mouth = filled(lips - low.astype(np.float32), patch.shape)
    share = cv2.GaussianBlur(mouth, (0, 0), sigma_px)[..., None]
    result[place] = np.round(patch + share * (other[place].astype(np.float32) - patch))
    return result


def mouth_shades(source: UInt8, output: UInt8, before: Float, after: Float) -> tuple[float, float]:
    """Return the shades of the mouths of a source and of its new face; NaN unless the source's is wide open.

    Args:
        source: uint8 RGB (h, w, 3).
        output: the same.
        before: float32 (478, 2), landmarks of the source, pixels.
        after: the same, of the new face.
    """
    seen = teeth_of(source, before)
    if seen.share < 1:
        return float("nan"), float("nan")
    shade = mouth_shade(output, after)  # closed lips are as dark as they are
    return seen.shade, shade if np.isfinite(shade) else mouth_shade(output, before)


@lru_cache(maxsize=1)
def teeth_direction() -> Float:
    """Return what changes w when the inside of a mouth is to be brighter by 1, float32 (512,)."""
    return read_tensor("teeth.safetensors", "direction")
