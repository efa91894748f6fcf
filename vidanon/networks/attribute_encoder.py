"""The attribute encoder: what of a face crop should stay (pose, expression, light, hair).

It takes the place of the InceptionV3 encoder of "Face Identity Disentanglement via Latent Space Mapping"
(Nitzan et al. 2020, section 3): a small residual network, since it runs on every frame.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

CROP_PX = 128
ATTRIBUTE_SIZE = 256

_BLOCKS = ((48, 48, 1), (48, 96, 2), (96, 96, 1), (96, 192, 2), (192, 192, 1))
"""(channels in, channels out, stride) of the blocks behind the stem."""


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016), with SiLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.SiLU(),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        same = channels_in == channels_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (n, channels_in, h, w) to (n, channels_out, h / stride, w / stride)."""
        return nn.functional.silu(self.shortcut(x) + self.layers(x))


class AttributeEncoder(nn.Module):
    """Encode an FFHQ-aligned face crop.

    Plain convolutions on patches of 4 x 4 pixels: on a CPU they train and run faster than the thinner layers
    of mobile networks, which wait for memory. The 8x8 map is flattened, not averaged: average pooling loses
    the pose.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 48, 4, 4, bias=False), nn.BatchNorm2d(48), nn.SiLU())
        self.blocks = nn.Sequential(*(Residual(*block) for block in _BLOCKS))
        self.reduce = nn.Conv2d(192, 64, 1)
        self.out = nn.Linear(64 * 8 * 8, ATTRIBUTE_SIZE)

    def forward(self, crop: Tensor) -> Tensor:
        """Map float32 RGB crops (n, 3, 128, 128) in [-1, 1] to attribute codes (n, 256)."""
        x = self.blocks(self.stem(crop))
        x = nn.functional.silu(self.reduce(x))
        return cast(Tensor, self.out(torch.flatten(x, 1)))
