"""Draws the batches of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidanon.training.augment import attribute_crop
from vidanon.training.config import Stage, TrainConfig
from vidanon.training.data import Samples
from vidanon.training.losses import Batch
from vidanon.training.traits import Traits

EXPRESSION_NOISE = 0.1
POSE_NOISE, GAZE_NOISE = 0.05, 0.1
"""Standard deviations of the noise on what the mapper is told, all standardised."""
RARE_POWER = 2.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """One step's input to the networks, and what its result is compared with.

    Attributes:
        crop: float32 (n, 3, 128, 128), what the attribute encoder sees.
        expression: float32 (n, 59), standardised blendshapes, pose, gaze.
        batch: what the result should be.
    """

    crop: Tensor
    expression: Tensor
    batch: Batch


class Feeder:
    """Draws batches; the same ones for the same seed, stage and step."""

    def __init__(self, samples: Samples, traits: Traits, white: Tensor, config: TrainConfig) -> None:
        self._samples, self._traits, self._white, self._config = samples, traits, white, config
        self._probability = rarity(traits)

    def draw(self, stage: Stage, number: int, step: int) -> Inputs:
        """Return the batch of a step of stage ``number``."""
        random = np.random.default_rng([self._config.seed, number, step])
        # Thirds, so that the paper's rhythm (every third step crosses) can be set.
        same = step % 3 >= round(stage.cross * 3)
        source = self._sources(random, stage.batch)
        identity, expression = source, source
        swapped = np.zeros(stage.batch, bool)
        if not same:
            identity = random.integers(0, len(self._white), stage.batch)
            swapped = random.random(stage.batch) < self._config.swap
            expression = np.where(swapped, self._sources(random, stage.batch), source)
        samples, traits = self._samples, self._traits
        augment = random if self._config.augment else None
        crops = [attribute_crop(samples.pictures[i], samples.landmarks[i], augment) for i in source]
        rows, expression_rows = torch.from_numpy(source), torch.from_numpy(expression)
        wanted = traits[expression_rows]
        return Inputs(
            torch.from_numpy(np.stack(crops)),
            self._told(random, wanted, traits.pose[rows]),
            Batch(
                identity=traits.embedding[torch.from_numpy(identity)],
                source=traits[rows],
                expression=wanted.expression,
                gaze=wanted.gaze,
                white=self._white[rows],
                same=same,
                swapped=torch.from_numpy(swapped),
                picture=torch.from_numpy(samples.pictures[source]).permute(0, 3, 1, 2) / 127.5 - 1,
            ),
        )

    def _sources(self, random: np.random.Generator, count: int) -> Any:
        rare = random.random(count) < self._config.rare
        plain = random.integers(0, len(self._probability), count)
        return np.where(rare, random.choice(len(self._probability), count, p=self._probability), plain)

    def _told(self, random: np.random.Generator, wanted: Traits, pose: Tensor) -> Tensor:
        """Return expression, pose and gaze with the errors that a landmarker makes on real video."""
        parts = ((wanted.expression, EXPRESSION_NOISE), (pose, POSE_NOISE), (wanted.gaze, GAZE_NOISE))
        return torch.cat(
            [x + spread * torch.from_numpy(random.standard_normal(x.shape)).float() for x, spread in parts], 1
        )


def rarity(traits: Traits) -> Any:
    """Return a probability per sample, higher for expressions, gazes and poses that few samples have."""
    far = torch.cat([traits.expression, traits.pose, traits.gaze], 1).abs()
    # The five largest deviations of a face say how unusual it is.
    score = far.topk(5, 1).values.mean(1).pow(RARE_POWER).double().numpy()
    return score / score.sum()
