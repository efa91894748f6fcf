"""What the fits of directions of w share: drawn faces to work on, and the directions in which w varies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vidanon.identity.bank import load_bank
from vidanon.identity.turn import turn_slopes
from vidanon.models.registry import ModelStore
from vidanon.networks.mapper import AttributeMapper, load_attribute_mapper
from vidanon.training.config import DataConfig
from vidanon.training.data import FaceReader, LatentSource, Samples, read_all
from vidanon.types import Float


class Task(NamedTuple):
    """What a fit is given on the command line, and the faces drawn for it.

    Attributes:
        models: where the networks are.
        mapper: in evaluation mode.
        reader: makes and reads pictures.
        drawn: random faces.
        target: where the result goes.
        workers: threads.
    """

    models: ModelStore
    mapper: AttributeMapper
    reader: FaceReader
    drawn: Samples
    target: Path
    workers: int


def parse_task(description: str | None, count: int, seed: int) -> Task:
    """Parse the command line of a fit, and draw and read ``count`` faces by the seed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", type=Path, help="of the mapper (default: the package's)")
    parser.add_argument("--target", type=Path, required=True, help="where the result goes")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    models = ModelStore()
    reader = FaceReader(models, options.workers)
    latents = LatentSource(models, DataConfig().truncation, seed).draw(0, count)
    samples = read_all(reader, latents, options.workers)
    mapper = load_attribute_mapper(options.weights)
    return Task(models, mapper, reader, samples, options.target, options.workers)


def widest(apart: Float, count: int) -> Float:
    """Return in which directions differences of w are largest, each as long as one standard deviation.

    Args:
        apart: float32 (n, 512), differences of w from a mean.
        count: of directions.

    Returns:
        float32 (512, count), the widest first, without what tells looks or turns the head.
    """
    fixed, _ = np.linalg.qr(np.hstack([load_bank().w_slopes.T, turn_slopes().T]))
    apart = apart - apart @ fixed @ fixed.T
    variances, directions = np.linalg.eigh(apart.T @ apart / len(apart))
    last = slice(-1, -1 - count, -1)
    return np.asarray(directions[:, last] * np.sqrt(variances[last]), np.float32)
