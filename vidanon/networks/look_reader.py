"""Features that tell how a face looks: apparent sex, age and ancestry, beard, glasses.

A small residual network, taught on generated portraits (:mod:`vidanon.training.looks`); the bank of fictional
people holds the linear readers of its features.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import Tensor, nn

from vidanon.models.registry import weights_path
from vidanon.networks.attribute_encoder import Residual
from vidanon.networks.weights import take_weights

CROP_PX = 128
ROWS, COLUMNS = slice(20, 116), slice(16, 112)
"""The part of a crop in FFHQ alignment that is looked at: the face, little of the hair."""
FEATURE_SIZE = 256

_BLOCKS = ((32, 64, 2), (64, 128, 2), (128, 192, 2), (192, 192, 1))
"""(channels in, channels out, stride) of the blocks behind the stem."""


class LookNet(nn.Module):
    """Features of one face per row."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU())
        self.blocks = nn.Sequential(*(Residual(*block) for block in _BLOCKS))
        self.out = nn.Sequential(nn.Linear(_BLOCKS[-1][1], FEATURE_SIZE), nn.SiLU())

    def forward(self, crop: Tensor) -> Tensor:
        """Map float32 RGB crops (n, 3, 128, 128) in [-1, 1], FFHQ alignment, to features (n, 256)."""
        x = self.blocks(self.stem(crop[:, :, ROWS, COLUMNS]))
        return cast(Tensor, self.out(x.mean((2, 3))))


def load_look_net(weights: Path | None = None) -> LookNet:
    """Build the network, frozen, in evaluation mode.

    Args:
        weights: safetensors file; None: the weights of the package.

    Raises:
        ModelsError: the file is missing, or does not fit the network.
    """
    module = LookNet()
    take_weights(module, weights or weights_path("looks.safetensors"))
    return module.eval().requires_grad_(False)
