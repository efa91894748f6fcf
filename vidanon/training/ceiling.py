"""How far W goes: what a descent on w itself, through the real networks, reaches on the mapper's own tasks.

The mapper finds w in one step for faces it has never seen. Where even hundreds of times that work leaves a
bar unmet on the very face it is spent on, the bar is out of reach of one w for all layers; where it is met,
the mapper is what has to get better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vidanon.stages.head_pose import HeadPose
from vidanon.training.config import Losses
from vidanon.training.data import Samples
from vidanon.training.losses import Batch, LossTerms
from vidanon.training.readers import GeneratorReader
from vidanon.training.traits import Traits, TraitSpace
from vidanon.types import Float

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

LOSSES = Losses(identity=2.0, stranger=1.0, pose=0.6, gaze=0.3, expression=0.6, prior=1.0)
"""As in training (default.toml), without what only steadies the mapper."""
RATE = 0.03
"""In units of the spread of w."""
MIN_SAMPLES = 128
"""Fewer do not give the units of pose."""


def descend(
    start: Float,
    samples: Samples,
    identity: Float,
    spread: tuple[Float, Float],
    models: ModelStore,
    stops: tuple[int, ...],
    progress: Callable[[int], object] = lambda _: None,
) -> list[Float]:
    """Improve latents step by step.

    Args:
        start: float32 (n, 512), what the mapper made.
        samples: at least 128 faces; the first n are the attribute sources. They also give the units.
        identity: float32 (n, 128), SFace, unit length: whom the results are to look like.
        spread: mean and standard deviation of w, (512,) each.
        models: where the networks are.
        stops: numbers of steps, rising.
        progress: called with the steps done.

    Returns:
        The latents after each of ``stops``, float32 (n, 512).
    """
    space = TraitSpace()
    space.fit(samples, HeadPose(models))
    reader = GeneratorReader(models, space)
    source, wanted = space.traits_of(samples), torch.from_numpy(identity)
    rows = torch.split(torch.arange(len(start)), 1)  # one at a time: the generator's features are large
    batches = [_batch(source[row], wanted[row]) for row in rows]
    terms = LossTerms(space)
    mean, std = (torch.from_numpy(x) for x in spread)
    white = ((torch.from_numpy(start) - mean) / std).requires_grad_(True)
    optimiser = torch.optim.Adam([white], lr=RATE)
    found = []
    for step in range(stops[-1] + 1):
        if step in stops:
            found.append(np.asarray((white * std + mean).detach().numpy(), np.float32))
        if step == stops[-1]:
            break
        optimiser.zero_grad(set_to_none=True)
        for row, batch in zip(rows, batches, strict=True):
            seen, _ = reader(white[row] * std + mean)
            losses = terms(seen, white[row], batch, LOSSES, None)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        progress(step + 1)
    return found


def _batch(source: Traits, identity: Tensor) -> Batch:
    nothing = torch.zeros(len(identity), 0)
    return Batch(
        identity=identity,
        source=source,
        expression=source.expression,
        gaze=source.gaze,
        white=nothing,
        same=False,
        swapped=torch.zeros(len(identity), dtype=torch.bool),
        picture=nothing,
    )
