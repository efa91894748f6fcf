"""The mapper: identity, attributes and expression to a latent w of the generator.

"Face Identity Disentanglement via Latent Space Mapping" (Nitzan et al. 2020, section 3), with the 52
blendshapes, head rotation and gaze as an explicit part of the input: landmark networks read them more
reliably from real footage than an encoder that has seen generated pictures only.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vidanon.models.registry import weights_path
from vidanon.networks.attribute_encoder import ATTRIBUTE_SIZE, AttributeEncoder
from vidanon.networks.weights import take_weights
from vidanon.types import BLENDSHAPE_COUNT, EMBEDDING_SIZE, LANDMARK_COUNT

W_SIZE = 512
W_SPREAD = 0.47
"""Scale of the last layer's output: about the standard deviation of one component of w."""


POSE_SIZE, GAZE_SIZE = 3, 4
TURN_SIZE = 2
"""Pitch and yaw; crops are aligned, so that there is no roll."""
MAX_TURN = 3.0
"""Largest standardised pitch and yaw that are made good: 21 and 37 degrees."""
MAX_GAZE = 4.0
"""Largest standardised iris offset."""
EYES = ((468, 33, 133, 159, 145), (473, 362, 263, 386, 374))
"""Of both eyes: iris, corner, corner, upper lid, lower lid."""


def gaze_offsets(landmarks: Tensor) -> Tensor:
    """Return where the irises sit in the eyes, (n, 4), in eye widths, from landmarks (n, 478, 2)."""
    offsets = []
    for iris, first, second, upper, lower in EYES:
        across = landmarks[:, second] - landmarks[:, first]
        width = across.norm(dim=1, keepdim=True).clamp_min(1e-6)
        x_axis = across / width
        y_axis = torch.stack([-x_axis[:, 1], x_axis[:, 0]], 1)
        middle = (landmarks[:, first] + landmarks[:, second]) / 2
        lids = (landmarks[:, upper] + landmarks[:, lower]) / 2
        offset = landmarks[:, iris] - middle
        offsets.append((offset * x_axis).sum(1, keepdim=True) / width)
        # Lids move with the gaze: half of their movement is taken off.
        offsets.append(((offset - 0.5 * (lids - middle)) * y_axis).sum(1, keepdim=True) / width)
    return torch.cat(offsets, 1)


class Geometry(nn.Module):
    """Head rotation and gaze from landmarks, in units of their spread over generated faces."""

    pose_map: Tensor
    pose_bias: Tensor
    gaze_mean: Tensor
    gaze_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pose_map", torch.zeros(LANDMARK_COUNT * 2, POSE_SIZE))
        self.register_buffer("pose_bias", torch.zeros(POSE_SIZE))
        self.register_buffer("gaze_mean", torch.zeros(GAZE_SIZE))
        self.register_buffer("gaze_scale", torch.ones(GAZE_SIZE))

    def pose(self, landmarks: Tensor) -> Tensor:
        """Return standardised rotation vectors (n, 3) of landmarks (n, 478, 2), aligned to the unit crop."""
        return landmarks.flatten(1) @ self.pose_map + self.pose_bias

    def gaze(self, landmarks: Tensor) -> Tensor:
        """Return standardised iris offsets (n, 4) of landmarks (n, 478, 2)."""
        standardised = (gaze_offsets(landmarks) - self.gaze_mean) / self.gaze_scale
        # An eye seen from the side has hardly a width to measure in.
        return standardised.clamp(-MAX_GAZE, MAX_GAZE)

    def forward(self, landmarks: Tensor) -> Tensor:
        """Return pose and gaze side by side, (n, 7), of aligned landmarks (n, 478, 2)."""
        return torch.cat([self.pose(landmarks), self.gaze(landmarks)], 1)


class Turn(nn.Module):
    """What of pitch and yaw the layers of the mapper do not pass on, made good along the slopes of w.

    Fitted by :mod:`vidanon.training.turn`: ``slopes`` is the change of w that turns a picture by one degree,
    ``lack`` the degrees that are missing per unit of standardised pitch and yaw.
    """

    slopes: Tensor
    lack: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.zeros(TURN_SIZE, W_SIZE))
        self.register_buffer("lack", torch.zeros(TURN_SIZE))

    def forward(self, pose: Tensor) -> Tensor:
        """Return what is added to w, (n, 512), for standardised rotation vectors (n, 3)."""
        lacking = pose[:, :TURN_SIZE].clamp(-MAX_TURN, MAX_TURN) * self.lack
        return lacking @ self.slopes


class Mapper(nn.Module):
    """Four linear layers with leaky ReLU from the joint code to one w for all layers of the generator."""

    w_mean: Tensor

    def __init__(self, width: int = 1024) -> None:
        super().__init__()
        joint = EMBEDDING_SIZE + ATTRIBUTE_SIZE + BLENDSHAPE_COUNT + POSE_SIZE + GAZE_SIZE
        sizes = (joint, width, width, width, W_SIZE)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.register_buffer("w_mean", torch.zeros(W_SIZE))
        self.turn = Turn()

    def forward(self, identity: Tensor, attributes: Tensor, told: Tensor) -> Tensor:
        """Map a joint code to a latent.

        Args:
            identity: float32 (n, 128), unit length.
            attributes: float32 (n, 256), of the attribute encoder.
            told: float32 (n, 59), standardised blendshapes, head rotation and gaze.

        Returns:
            float32 (n, 512), w of the generator.
        """
        x = torch.cat([identity * math.sqrt(EMBEDDING_SIZE), attributes, told], 1)
        for i, layer in enumerate(self.layers):
            x = layer(nn.functional.leaky_relu(x, 0.2) if i else x)
        turn: Tensor = self.turn(told[:, BLENDSHAPE_COUNT:])
        return self.w_mean + W_SPREAD * x + turn


class AttributeMapper(nn.Module):
    """Attribute encoder and mapper in one: everything that is learned here."""

    blendshape_mean: Tensor
    blendshape_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.attributes = AttributeEncoder()
        self.geometry = Geometry()
        self.mapper = Mapper()
        self.register_buffer("blendshape_mean", torch.zeros(BLENDSHAPE_COUNT))
        self.register_buffer("blendshape_scale", torch.ones(BLENDSHAPE_COUNT))

    def forward(self, crop: Tensor, identity: Tensor, blendshapes: Tensor, landmarks: Tensor) -> Tensor:
        """Map one face per row to the latent of its replacement.

        Args:
            crop: float32 RGB (n, 3, 128, 128) in [-1, 1], FFHQ alignment, of the source.
            identity: float32 (n, 128), unit length, of the new person.
            blendshapes: float32 (n, 52), 0..1, MediaPipe's order, of the source.
            landmarks: float32 (n, 478, 2), of the source, in the unit crop.

        Returns:
            float32 (n, 512), w of the generator.
        """
        expression = (blendshapes - self.blendshape_mean) / self.blendshape_scale
        told = torch.cat([expression, self.geometry(landmarks)], 1)
        return cast(Tensor, self.mapper(identity, self.attributes(crop), told))


def load_attribute_mapper(weights: Path | None = None) -> AttributeMapper:
    """Build the attribute mapper, frozen, in evaluation mode.

    Args:
        weights: safetensors file; None: the weights of the package.

    Raises:
        ModelsError: the file is missing, or does not fit the network.
    """
    module = AttributeMapper()
    take_weights(module, weights or weights_path("mapper.safetensors"))
    return module.eval().requires_grad_(False)
