"""The mapper: identity, attributes and expression to a latent w of the generator.

"Face Identity Disentanglement via Latent Space Mapping" (Nitzan et al. 2020, section 3), with the 52
blendshapes as an explicit part of the input, so that eyelids and jaw follow the source.
"""

from __future__ import annotations

import math
from importlib.resources import as_file, files
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from vidanon.errors import ModelsError
from vidanon.networks.attribute_encoder import ATTRIBUTE_SIZE, AttributeEncoder
from vidanon.types import BLENDSHAPE_COUNT, EMBEDDING_SIZE

W_SIZE = 512
W_SPREAD = 0.47
"""Scale of the last layer's output: about the standard deviation of one component of w."""


class Mapper(nn.Module):
    """Four linear layers with leaky ReLU from the joint code to one w for all layers of the generator."""

    w_mean: Tensor

    def __init__(self, width: int = 1024) -> None:
        super().__init__()
        joint = EMBEDDING_SIZE + ATTRIBUTE_SIZE + BLENDSHAPE_COUNT
        sizes = (joint, width, width, width, W_SIZE)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.register_buffer("w_mean", torch.zeros(W_SIZE))

    def forward(self, identity: Tensor, attributes: Tensor, expression: Tensor) -> Tensor:
        """Map identity (n, 128), attributes (n, 256) and z-scored blendshapes (n, 52) to w (n, 512)."""
        x = torch.cat([identity * math.sqrt(EMBEDDING_SIZE), attributes, expression], 1)
        for i, layer in enumerate(self.layers):
            x = layer(nn.functional.leaky_relu(x, 0.2) if i else x)
        return self.w_mean + W_SPREAD * x


class AttributeMapper(nn.Module):
    """Attribute encoder and mapper in one: everything that is learned here."""

    blendshape_mean: Tensor
    blendshape_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.attributes = AttributeEncoder()
        self.mapper = Mapper()
        self.register_buffer("blendshape_mean", torch.zeros(BLENDSHAPE_COUNT))
        self.register_buffer("blendshape_scale", torch.ones(BLENDSHAPE_COUNT))

    def forward(self, crop: Tensor, identity: Tensor, blendshapes: Tensor) -> Tensor:
        """Map one face per row to the latent of its replacement.

        Args:
            crop: float32 RGB (n, 3, 128, 128) in [-1, 1], FFHQ alignment, of the source.
            identity: float32 (n, 128), unit length, of the new person.
            blendshapes: float32 (n, 52), 0..1, MediaPipe's order, of the source.

        Returns:
            float32 (n, 512), w of the generator.
        """
        expression = (blendshapes - self.blendshape_mean) / self.blendshape_scale
        return cast(Tensor, self.mapper(identity, self.attributes(crop), expression))


def load_weights(name: str) -> dict[str, Tensor]:
    """Read one of the package's own weight files, all floating point tensors as float32.

    Args:
        name: file name in ``vidanon/models/weights``.

    Raises:
        ModelsError: the file is missing from the installation.
    """
    from safetensors.torch import load_file

    with as_file(files("vidanon.models") / "weights" / name) as path:
        if not path.is_file():
            raise ModelsError(f"weights {name} are missing from this installation; install vidanon again")
        weights: dict[str, Tensor] = load_file(path)
    return {key: x.float() if x.is_floating_point() else x for key, x in weights.items()}


def load_attribute_mapper() -> AttributeMapper:
    """Build the attribute mapper with the weights of the package, frozen, in evaluation mode.

    Raises:
        ModelsError: the weights are missing from the installation.
    """
    module = AttributeMapper()
    module.load_state_dict(load_weights("mapper.safetensors"))
    return module.eval().requires_grad_(False)
