"""The training of the network that reads looks: it learns, and it goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidanon.networks.look_reader import load_look_net
from vidanon.training.looks import SCORES, Portraits, Trainer, judged
from vidanon.types import Float

STEPS = 8


@pytest.fixture(scope="module")
def lesson() -> tuple[Portraits, Float]:
    """Bright portraits are women of 60 with glasses, dark ones men of 20 without."""
    random = np.random.default_rng(0)
    bright = random.random(96) < 0.5
    noise = random.integers(0, 60, (96, 128, 128, 3))
    pictures = (noise + np.where(bright, 180, 10)[:, None, None, None]).astype(np.uint8)
    features = random.standard_normal((96, 1024)).astype(np.float32) + 3 * bright[:, None]
    labels = np.zeros((96, SCORES), np.float32)
    labels[:, 0], labels[:, 1], labels[:, 8] = bright, np.where(bright, 0.6, 0.2), bright
    labels[:, 3] = 1
    age = (100 * labels[:, 1]).astype(np.float32)
    return Portraits(pictures, features.astype(np.float32), labels[:, 0].copy(), age), labels


def trained(lesson: tuple[Portraits, Float], folder: Path, stops: tuple[int, ...]) -> Trainer:
    """Train up to each of the stops in turn, each time from the files of the last."""
    for stop in stops:
        trainer = Trainer(*lesson, STEPS, 1, folder / "checkpoint.pt")
        for crops, rows in trainer.batches():
            trainer.train_step(crops, rows)
            if trainer.step == stop:
                break
        trainer.save(folder / "looks.safetensors")
    return trainer


def test_it_learns_and_goes_on_where_it_was_stopped(lesson: tuple[Portraits, Float], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("once", "twice")]
    for folder in folders:
        folder.mkdir()
    once = trained(lesson, folders[0], (STEPS,))
    twice = trained(lesson, folders[1], (3, STEPS))
    for a, b in zip(once.module.parameters(), twice.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)
    said = judged(once.average, lesson[0].pictures)
    women = lesson[1][:, 0] > 0.5
    assert said[women, 0].mean() > said[~women, 0].mean() + 0.05
    assert load_look_net(folders[0] / "looks.safetensors")(torch.zeros(1, 3, 128, 128)).shape == (1, 256)
