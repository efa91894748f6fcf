"""A sheet of pictures to look at while training: attributes down, identities across."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from vidanon.models.registry import ModelStore
from vidanon.networks.exit_heads import load_exit_generator
from vidanon.networks.mapper import AttributeMapper
from vidanon.training.augment import attribute_crop
from vidanon.training.data import Samples
from vidanon.training.traits import aligned_landmarks
from vidanon.types import UInt8

SOURCES, PEOPLE = 8, 6
EXIT_PX = 128


@torch.no_grad()
def draw_sheet(model: AttributeMapper, samples: Samples, models: ModelStore, path: Path) -> None:
    """Write a PNG: first column the attribute sources, first row the identity sources, results between.

    Args:
        model: in evaluation mode.
        samples: at least 14 held-out samples: first the attribute sources, then the identity sources.
        models: where the generator is.
        path: the PNG.
    """
    device = next(model.parameters()).device
    generator = load_exit_generator(models, EXIT_PX).to(device)
    sources, people = samples.take(slice(0, SOURCES)), samples.take(slice(SOURCES, SOURCES + PEOPLE))
    crops = [attribute_crop(*pair, None) for pair in zip(sources.pictures, sources.landmarks, strict=True)]
    landmarks = torch.from_numpy(aligned_landmarks(sources.landmarks)).to(device)
    rows = [np.concatenate([np.full_like(people.pictures[0], 255), *people.pictures], 1)]
    for i in range(SOURCES):
        crop = torch.from_numpy(crops[i])[None].to(device).expand(PEOPLE, -1, -1, -1)
        told = torch.from_numpy(sources.blendshapes[i])[None].to(device).expand(PEOPLE, -1)
        identity = torch.from_numpy(people.embeddings).to(device)
        w = model(crop, identity, told, landmarks[i : i + 1].expand(PEOPLE, -1, -1))
        rows.append(np.concatenate([sources.pictures[i], *_pictures(generator(w))], 1))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows, 0), cv2.COLOR_RGB2BGR))


def _pictures(out: torch.Tensor) -> list[UInt8]:
    levels = (out.permute(0, 2, 3, 1) * 127.5 + 127.5).clamp(0, 255).round()
    return list(levels.cpu().numpy().astype(np.uint8))
