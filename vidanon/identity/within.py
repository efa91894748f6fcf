"""Hold w within what the generator was trained to draw.

What the mapper finds, and more so what leads it nearer to somebody, strays from the generator's own w most
where these hardly vary at all. Pictures suffer from it: deep folds, leathery skin, dark sockets. So in no
direction may w lie further from the mean than drawn ones do, see :mod:`vidanon.training.within`: a face as it
is on average, which is shifted as a whole, less than in any frame, so that there is room for expression.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vidanon.models.registry import read_tensor
from vidanon.types import Float

FACE, FRAME = 2.0, 3.0
"""So many standard deviations from the mean a face may lie on average, and in a frame."""


class Drawn(NamedTuple):
    """How the generator's own w are spread.

    Attributes:
        mean: float32 (512,).
        axes: float32 (512, 512), columns of unit length, along which w varies by itself, the widest first.
        deviations: float32 (512,), standard deviations along these.
    """

    mean: Float
    axes: Float
    deviations: Float


@lru_cache(maxsize=1)
def drawn() -> Drawn:
    """Return how the generator's own w are spread."""
    return Drawn(*(read_tensor("within.safetensors", name) for name in Drawn._fields))


def too_far(w: Float, most: float) -> Float:
    """Return what has to be taken off w so that it is within, float32 (512,).

    Args:
        w: float32 (512,).
        most: so far it may lie from the mean along each axis, standard deviations.
    """
    mean, axes, deviations = drawn()
    along = (w - mean) @ axes
    limits = np.float32(most) * deviations
    return np.asarray(axes @ (along - np.clip(along, -limits, limits)), np.float32)
