"""Which part of a head a pixel shows: a small U-Net on the FFHQ-aligned crop of 128 px."""

from __future__ import annotations

from enum import IntEnum
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidanon.models.registry import weights_path
from vidanon.networks.weights import take_weights

CROP_PX = 128
MAP_PX = 64
"""Side length of the class maps."""
_WIDTHS = (16, 32, 48, 80, 112)


class Part(IntEnum):
    """What a pixel shows. ``FEATURES`` are eyes, brows, mouth and glasses; ``CLOTHES`` hats as well."""

    BACKGROUND = 0
    SKIN = 1
    FEATURES = 2
    HAIR = 3
    BEARD = 4
    CLOTHES = 5
    OCCLUDER = 6
    """Something in front of the head: a hand, a cup, a microphone."""


def _unit(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """Depthwise separable convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False),
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class Segmenter(nn.Module):
    """U-Net of separable convolutions: 128 px crop in, 64 px class maps out."""

    def __init__(self) -> None:
        super().__init__()
        first = _WIDTHS[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 5, 2, 2, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True)
        )
        self.same = _unit(first, first)
        self.down = nn.ModuleList(
            nn.Sequential(_unit(a, b, 2), _unit(b, b), _unit(b, b)) for a, b in pairwise(_WIDTHS)
        )
        self.up = nn.ModuleList(
            nn.Sequential(_unit(a + b, b), _unit(b, b)) for a, b in pairwise(_WIDTHS[::-1])
        )
        self.head = nn.Conv2d(first, len(Part), 1)

    def forward(self, crop: Tensor) -> Tensor:
        """Map RGB (n, 3, 128, 128) in [-1, 1] to logits (n, 7, 64, 64), in the order of :class:`Part`."""
        x = self.same(self.stem(crop))
        skips = []
        for level in self.down:
            skips.append(x)
            x = level(x)
        for level in self.up:
            skip = skips.pop()
            x = functional.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = level(torch.cat([x, skip], 1))
        return cast(Tensor, self.head(x))


class PartChances(nn.Module):
    """The segmenter with chances instead of logits."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, crop: Tensor) -> Tensor:
        """Map RGB (n, 3, 128, 128) in [-1, 1] to chances (n, 7, 64, 64) that sum to 1 over the parts."""
        return functional.softmax(self.segmenter(crop), 1)


def load_segmenter() -> PartChances:
    """Build the segmenter with the weights of the package, frozen, in evaluation mode.

    Raises:
        ModelsError: the weights are missing from the installation.
    """
    module = Segmenter()
    take_weights(module, weights_path("segmenter.safetensors"))
    return PartChances(module).eval().requires_grad_(False)
