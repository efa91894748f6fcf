"""Bring a new face nearer to the fictional person who was asked for, by what is seen of it when it is drawn.

The mapper finds w in one step, and what SFace reads in its pictures comes only so near to what was asked for.
How the reading changes with w is told by drawing the face again, changed a little in each of some directions;
then one step of Gauss and Newton, held back where little is gained, leads to where more of the person shows.
The directions are those in which pictures change most for SFace and least in expression, most first, see
:mod:`vidanon.training.reach`. A first step goes as is best on average over many faces, without drawing any:
of 24 pairs of generated faces it takes SFace from .66 to .70, as far as one step along 24 directions, which
takes 25 pictures. EdgeFace and dlib take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np

from vidanon.models.registry import read_tensor
from vidanon.types import Float

NUDGE = 0.7
"""So far, in lengths of a direction, w is changed to see what that does."""
DAMPING = 0.005
"""What a length along a direction costs, beside the squared distance of what is read from what is asked."""
STEPS = 2
"""So often the face that is taken is led nearer by drawing it again, which takes too long for all that are
tried."""

Embed = Callable[[Float], Float]
"""Draws w (512,) and returns what SFace reads in the picture, (128,), unit length."""
Spread = Callable[[Embed, Iterable[Float]], Iterable[Float]]
"""Calls a function with each of some w, in order, as ``map`` does."""


@lru_cache(maxsize=1)
def reach_directions() -> Float:
    """Return in which directions w is led nearer, float32 (512, n)."""
    return read_tensor("reach.safetensors", "directions")


def usual_shift(lacking: Float) -> Float:
    """Return what to add to w, float32 (512,), as is best on average.

    Args:
        lacking: float32 (128,), what is asked for less what is read.
    """
    return np.asarray(_usual() @ lacking, np.float32)


@lru_cache(maxsize=1)
def _usual() -> Float:
    return read_tensor("reach.safetensors", "usual")


def responses(embed: Embed, w: Float, spread: Spread = map) -> Float:
    """Return how what is read changes along each direction, float32 (128, n).

    Args:
        embed: draws and reads; safe to call from as many threads as ``spread`` has.
        w: float32 (512,), around which.
        spread: calls it.
    """
    at_rest, *nudged = spread(embed, [w, *(w + np.float32(NUDGE) * reach_directions().T)])
    return np.asarray((np.stack(nudged) - at_rest).T / np.float32(NUDGE), np.float32)


def step(response: Float, lacking: Float) -> Float:
    """Return how far to go along each direction, float32 (n,).

    Args:
        response: float32 (128, n), see :func:`responses`.
        lacking: float32 (128,), what is asked for less what is read.
    """
    curve = response.T @ response + np.float32(DAMPING) * np.eye(response.shape[1], dtype=np.float32)
    return np.asarray(np.linalg.solve(curve, response.T @ lacking), np.float32)
