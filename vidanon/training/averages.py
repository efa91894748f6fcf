"""The moving average of a network's weights, which is what ships."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, step: int, keep: float) -> None:
    """Move averaged weights and statistics towards those of a network, quicker in its first steps.

    Args:
        average: changed in place.
        module: of the same kind.
        step: how many steps it has taken.
        keep: share of the average that a later step leaves.
    """
    share = 1 - min(keep, step / (step + 10))
    pairs = zip(average.state_dict().values(), module.state_dict().values(), strict=True)
    for ours, theirs in pairs:
        if ours.is_floating_point():
            ours.lerp_(theirs, share)
