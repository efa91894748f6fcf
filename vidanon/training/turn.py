r"""Fit what leads w on where the mapper does not turn the head as far as it should.

    python -m vidanon.training.turn --weights mapper.safetensors --target mapper.safetensors

`vidanon train` does so at its end. How w changes with pitch and yaw is a regression over drawn faces; how far
pictures follow it, and what share of a turn the mapper's layers do not pass on, is read in pictures.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from vidanon.models.registry import ModelStore
from vidanon.networks.mapper import TURN_SIZE, AttributeMapper
from vidanon.networks.weights import save_weights
from vidanon.stages.head_pose import HeadPose
from vidanon.training.data import FaceReader, Samples
from vidanon.training.directions import parse_task
from vidanon.training.traits import rotation_vectors
from vidanon.types import Float

DRAWN, SEED = 4000, 77
CROSSED = 1000
"""Faces whose attributes are given to another person."""
NUDGED = 200
NUDGE_DEG = 4.0
"""Faces on which it is seen how far pictures follow w, and how far they are turned both ways."""
BATCH = 50


class TurnReader:
    """Makes pictures and reads how far the heads in them are turned."""

    def __init__(self, models: ModelStore, reader: FaceReader, workers: int) -> None:
        self._reader, self._pose, self._workers = reader, HeadPose(models), workers

    def of_samples(self, samples: Samples) -> Float:
        """Return pitch and yaw, degrees, float32 (n, 2)."""
        turns = np.degrees(rotation_vectors(samples.landmarks, self._pose).numpy())
        return np.asarray(turns[:, :TURN_SIZE], np.float32)

    def __call__(self, latents: Float) -> Float:
        """Return pitch and yaw in the picture of every w (n, 512); NaN where no face is found."""
        with ThreadPoolExecutor(self._workers) as pool:
            read = list(pool.map(self._reader.read, latents))
        nothing = np.full(TURN_SIZE, np.nan, np.float32)
        return np.stack([nothing if face is None else self.of_samples(face)[0] for face in read])


def fit_turn(mapper: AttributeMapper, drawn: Samples, read: TurnReader) -> None:
    """Set ``mapper.mapper.turn``.

    Args:
        mapper: on the CPU, in evaluation mode; changed in place.
        drawn: random faces, their w as it was drawn.
        read: makes and reads pictures.
    """
    turn, wanted = mapper.mapper.turn, read.of_samples(drawn)
    turn.lack.zero_()
    known = np.column_stack([wanted, np.ones(len(wanted))])
    slopes = np.linalg.lstsq(known, drawn.w, rcond=None)[0][:TURN_SIZE].astype(np.float32)
    crossed = drawn.take(slice(CROSSED))
    told, made = mapped(mapper, crossed, np.roll(crossed.embeddings, -1, axis=0))
    for axis in range(TURN_SIZE):
        nudge = slopes[axis] * np.float32(NUDGE_DEG)
        apart = read(made[:NUDGED] + nudge) - read(made[:NUDGED] - nudge)
        slopes[axis] *= 2 * NUDGE_DEG / np.nanmean(apart[:, axis])
    lacking = wanted[: len(made)] - read(made)
    found = np.isfinite(lacking).all(axis=1)
    lack = [np.polyfit(told[found, axis], lacking[found, axis], 1)[0] for axis in range(TURN_SIZE)]
    turn.slopes.copy_(torch.from_numpy(slopes))
    turn.lack.copy_(torch.tensor(lack, dtype=torch.float32))


@torch.no_grad()
def mapped(mapper: AttributeMapper, samples: Samples, identities: Float) -> tuple[Float, Float]:
    """Give the attributes of faces to other people.

    Args:
        mapper: on the CPU, in evaluation mode.
        samples: n faces.
        identities: float32 (n, 128), unit length.

    Returns:
        What the mapper takes for pitch and yaw, float32 (n, 2), and w, float32 (n, 512).
    """
    told, latents = [], []
    for start in range(0, len(samples), BATCH):
        rows = slice(start, start + BATCH)
        crops = samples.pictures[rows].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
        given = (crops, identities[rows], samples.blendshapes[rows], samples.landmarks[rows])
        tensors = [torch.from_numpy(x.astype(np.float32)) for x in given]
        told.append(mapper.geometry.pose(tensors[-1])[:, :TURN_SIZE].numpy())
        latents.append(mapper(*tensors).numpy())
    return np.concatenate(told), np.concatenate(latents)


def main() -> None:
    """Fit the turn of some weights anew."""
    task = parse_task(__doc__, DRAWN, SEED)
    fit_turn(task.mapper, task.drawn, TurnReader(task.models, task.reader, task.workers))
    save_weights(task.mapper, task.target)


if __name__ == "__main__":
    main()
