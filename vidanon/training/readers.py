"""The real networks in the loop: w -> picture -> embedding, landmarks, blendshapes, all differentiable."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vidanon.identity.embed import CROP_PX as SFACE_PX
from vidanon.identity.embed import TEMPLATE
from vidanon.models.registry import ModelStore
from vidanon.networks.exit_heads import load_exit_generator
from vidanon.networks.likeness import warp
from vidanon.networks.torch_graph import load_graph
from vidanon.stages.landmark import BLENDSHAPE_IDS, square_around
from vidanon.stages.landmark import CROP_PX as MESH_PX
from vidanon.training.data import CROP_PX, FACE_BOX, PICTURE_PX
from vidanon.training.precision import quick_precision
from vidanon.training.traits import Traits, TraitSpace, thumbnails
from vidanon.types import LANDMARK_COUNT

EXIT_PX = 256
"""Exit of the generator that losses go through; at 128 px neither identity nor gaze reads as in full."""
FIVE_POINT_IDS = ((33, 133), (362, 263), (1,), (61,), (291,))
LEFT_EYE, RIGHT_EYE, MOUTH = [33, 133, 159, 145], [263, 362, 386, 374], [61, 291]


class GeneratorReader(nn.Module):
    """Reads w through the generator and the frozen networks."""

    def __init__(self, models: ModelStore, space: TraitSpace) -> None:
        super().__init__()
        self.space = space
        self.generator = load_exit_generator(models, EXIT_PX)
        self.sface = load_graph(models, "sface", "")
        self.mesh = load_graph(models, "face-landmarker", "face_landmarks_detector.tflite")
        self.blendshapes = load_graph(models, "face-landmarker", "face_blendshapes.tflite")
        square = torch.from_numpy(square_around(FACE_BOX / np.float32(PICTURE_PX), 0.0))
        self.register_buffer("square", square)
        self.requires_grad_(False)

    square: Tensor

    def forward(self, w: Tensor) -> tuple[Traits, Tensor]:
        """Map w (n, 512) to traits and pictures (n, 3, 128, 128), about [-1, 1]."""
        with quick_precision(w.device.type):
            picture = cast(Tensor, self.generator(w))
        picture = picture.float()
        levels = (picture.clamp(-1, 1) + 1) / 2
        landmarks = self._landmarks(levels)
        crops = warp(levels, unit_from_sface(landmarks.detach()), SFACE_PX)
        (embedding,) = self.sface(crops * 255)
        points = landmarks[:, list(BLENDSHAPE_IDS)] * PICTURE_PX
        # The graph of this network takes one face only.
        blendshapes = torch.stack([self.blendshapes(face[None])[0].flatten() for face in points])
        traits = self.space.traits(
            embedding.reshape(len(w), -1),
            align(landmarks),
            blendshapes.clamp(0, 1),
            thumbnails(picture),
        )
        return traits, functional.avg_pool2d(picture, EXIT_PX // CROP_PX)

    def _landmarks(self, levels: Tensor) -> Tensor:
        """Return landmarks (n, 478, 2), unit crop."""
        square = self.square.expand(len(levels), 2, 3)
        crops = warp(levels, square, MESH_PX).permute(0, 2, 3, 1)
        points: Tensor = self.mesh(crops)[0].reshape(-1, LANDMARK_COUNT, 3)[..., :2] / MESH_PX
        return points @ self.square[:, :2].T + self.square[:, 2]


def unit_from_sface(landmarks: Tensor) -> Tensor:
    """Return the similarity (n, 2, 3) from SFace's unit crop to that of landmarks (n, 478, 2)."""
    points = torch.stack([landmarks[:, list(ids)].mean(1) for ids in FIVE_POINT_IDS], 1)
    template = torch.from_numpy((TEMPLATE + np.float32(0.5)) / np.float32(SFACE_PX)).to(points)
    return similarity(template.expand_as(points), points)


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares similarity (n, 2, 3) from points (n, k, 2) to points (n, k, 2)."""
    mean_source, mean_target = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    a, b = source - mean_source, target - mean_target
    norm = a.pow(2).sum((1, 2))
    cos = (a * b).sum((1, 2)) / norm
    sin = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(1) / norm
    linear = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    offset = mean_target[:, 0] - (linear @ mean_source.mT)[..., 0]
    return torch.cat([linear, offset[..., None]], 2)


def align(landmarks: Tensor) -> Tensor:
    """Align landmarks (n, 478, 2) to the unit crop (FFHQ), as ``geometry.unit_crop_from_frame`` does."""
    left, right, mouth = (landmarks[:, ids].mean(1) for ids in (LEFT_EYE, RIGHT_EYE, MOUTH))
    eyes, across = (left + right) / 2, right - left
    down = mouth - eyes
    x = across + torch.stack([down[:, 1], -down[:, 0]], 1)
    size = torch.maximum(2 * across.norm(dim=1), 1.8 * down.norm(dim=1))
    x = x / x.norm(dim=1, keepdim=True) * size[:, None]
    y = torch.stack([-x[:, 1], x[:, 0]], 1)
    corner = eyes + 0.1 * down - x - y
    offset = landmarks - corner[:, None]
    scale = 2 * x.pow(2).sum(1)[:, None]
    along_x = (offset * x[:, None]).sum(2) / scale
    along_y = (offset * y[:, None]).sum(2) / scale
    return torch.stack([along_x, along_y], 2)
