"""Faces with rare expressions and poses, which random draws hardly show.

Of random faces 2 % have their eyes closed and 0.2 % their mouth open. A descent on w, through the surrogate,
leads a random face to an expression that was drawn, while it stays the same person and stays near the
distribution of w. What ends up in the data is what the real networks read in the real picture.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vidanon.training.losses import expression_weights
from vidanon.training.surrogate import Surrogate
from vidanon.training.traits import TraitSpace
from vidanon.types import BLENDSHAPE_COUNT, Float

DESCENT_STEPS = 60
DESCENT_RATE = 0.06
IDENTITY_WEIGHT = 1.5
PRIOR_WEIGHT = 2.0
EXPRESSION_WEIGHT = 0.5
POSE_WEIGHT = 0.15
POSE_SPREAD = (0.5, 1.6, 1.6)
"""Standard deviations of the standardised rotations that are asked for (tilt is small after alignment)."""

# Movements that go together, by number of blendshape (MediaPipe's order), and how far they may go.
_MOVES: tuple[tuple[list[int], float, float, float], ...] = (
    # blendshapes, probability, lowest, highest
    ([9, 10], 0.30, 0.2, 0.7),  # eyes closed
    ([9], 0.04, 0.3, 0.6),
    ([10], 0.04, 0.3, 0.6),
    ([25], 0.40, 0.05, 0.7),  # mouth open
    ([44, 45], 0.30, 0.3, 1.0),  # smile
    ([3], 0.25, 0.2, 0.9),  # brows up
    ([1, 2], 0.20, 0.2, 0.8),  # brows down
    ([38, 32], 0.20, 0.2, 0.9),  # lips pushed forward
    ([30, 31], 0.08, 0.1, 0.5),  # frown
    ([36, 37], 0.10, 0.2, 0.6),  # lips pressed
    ([46, 47], 0.10, 0.1, 0.6),  # lips stretched
    ([48, 49], 0.10, 0.2, 0.7),  # upper lip raised
    ([11, 12], 0.20, 0.2, 0.8),  # look down
    ([17, 18], 0.12, 0.2, 0.6),  # look up
    ([14, 15], 0.22, 0.2, 0.9),  # look to one side
    ([13, 16], 0.22, 0.2, 0.9),  # and to the other
    ([19, 20], 0.15, 0.3, 0.8),  # squint
)


def draw_expressions(random: np.random.Generator, count: int, base: Float) -> Float:
    """Draw blendshapes, float32 (count, 52), on top of a resting face ``base`` (52,)."""
    wanted = np.repeat(base[None], count, 0)
    for numbers, probability, low, high in _MOVES:
        rows = np.flatnonzero(random.random(count) < probability)
        wanted[np.ix_(list(rows), numbers)] = random.uniform(low, high, (len(rows), 1))
    return wanted.astype(np.float32)


def lead(w: Float, surrogate: Surrogate, space: TraitSpace, random: np.random.Generator) -> Float:
    """Lead faces towards random expressions and poses.

    Args:
        w: float32 (n, 512), random faces.
        surrogate: reads w.
        space: units of the traits.
        random: decides what is asked for.

    Returns:
        float32 (n, 512).
    """
    start = torch.from_numpy(w)
    with torch.no_grad():
        before = surrogate(start)
    base = space.expression_mean.numpy().reshape(BLENDSHAPE_COUNT)
    asked = torch.from_numpy(draw_expressions(random, len(w), base))
    expression = (asked - space.expression_mean) / space.expression_scale
    spread = np.array(POSE_SPREAD, np.float32)
    pose = torch.from_numpy(random.standard_normal((len(w), 3)).astype(np.float32) * spread)
    turned = torch.from_numpy(random.random(len(w)) < 0.5)[:, None]
    pose = torch.where(turned, pose, before.pose)
    offset = torch.zeros_like(start, requires_grad=True)
    optimiser = torch.optim.Adam([offset], lr=DESCENT_RATE)
    for _ in range(DESCENT_STEPS):
        moved = start + offset * surrogate.w_std
        loss = _distance(moved, surrogate, before.embedding, expression, pose)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return np.asarray((start + offset * surrogate.w_std).detach().numpy(), np.float32)


def _distance(w: Tensor, surrogate: Surrogate, embedding: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
    """Return the sum over faces, so that each descends on its own."""
    seen = surrogate(w)
    white = (w - surrogate.w_mean) / surrogate.w_std
    terms = (
        IDENTITY_WEIGHT * (1 - (seen.embedding * embedding).sum(1))
        + EXPRESSION_WEIGHT * ((seen.expression - expression).pow(2) @ expression_weights())
        + POSE_WEIGHT * (seen.pose - pose).pow(2).mean(1)
        + PRIOR_WEIGHT * functional.relu(white.pow(2).mean(1) - 0.9)
    )
    total: Tensor = terms.sum()
    return total
