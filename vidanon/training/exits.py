"""Train the exit heads of the generator: ``python -m vidanon.training.exits --minutes 12 --out FILE``.

All heads learn at once from pictures that the generator itself makes; the target is its full output,
averaged down to the size of the exit. The last layers start at their least-squares solution, which is most of
the way. One full picture costs several times as much as one training step, so a bounded pool of samples is
kept in memory and each sample is seen several times. The state is saved to ``runs/exits`` and picked up
again by the next call.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from vidanon.models.registry import ModelStore
from vidanon.networks.exit_heads import EXITS_PX, ExitHead, new_heads
from vidanon.networks.generator import FULL_PX, Generator, load_generator, load_mapping
from vidanon.networks.runtime import Network

TRUNCATION = (0.5, 1.0)
"""Range of the truncation towards the mean of w from which training draws."""

_WINDOW = 64
"""Side length of the window of features that a step looks at, pixels."""
_RIDGE = 1e-4
"""Regularisation of the least-squares start, relative to the mean square of the features."""
_RATE = 2e-4
"""Highest learning rate. Ten times more destroys the least-squares start before it learns anything better."""
_SAVE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of the generator.

    Attributes:
        w: float32 (1, 512).
        features: float16 (1, c, px / 2, px / 2) per exit.
        targets: float16 (1, 3, px, px) per exit, [-1, 1].
    """

    w: Tensor
    features: dict[int, Tensor]
    targets: dict[int, Tensor]


class Sampler:
    """Draw w and make samples, the same ones for the same seed."""

    def __init__(self, generator: Generator, mapping: Network, seed: int) -> None:
        self._generator = generator
        self._mapping = mapping
        self._rng = np.random.default_rng(seed)
        probe = np.random.default_rng(0).standard_normal((4096, 512)).astype(np.float32)
        self._mean = mapping(probe)[0].mean(0)

    def draw(self) -> Sample:
        """Return the next sample."""
        z = self._rng.standard_normal((1, 512)).astype(np.float32)
        truncation = np.float32(self._rng.uniform(*TRUNCATION))
        w = torch.from_numpy(self._mean + truncation * (self._mapping(z)[0] - self._mean))
        with torch.no_grad():
            x = self._generator.features(w, min(EXITS_PX) // 2)
            features = {min(EXITS_PX): x.half()}
            while x.shape[-1] * 2 < FULL_PX:
                x = self._generator.extend(x, w)
                if x.shape[-1] * 2 in EXITS_PX:
                    features[x.shape[-1] * 2] = x.half()
            picture = self._generator.picture(x, w)
            targets = {px: functional.adaptive_avg_pool2d(picture, px).half() for px in EXITS_PX}
        return Sample(w, features, targets)


def haar(x: Tensor) -> Tensor:
    """Turn a picture (n, 3, 2h, 2w) into wavelet coefficients (n, 12, h, w); undoes ``inverse_haar``."""
    n, c, height, width = x.shape
    a, b, d, e = x.reshape(n, c, height // 2, 2, width // 2, 2).permute(3, 5, 0, 1, 2, 4).flatten(0, 1)
    details = torch.stack([a + b - d - e, a - b + d - e, a - b - d + e], 2).flatten(1, 2)
    return torch.cat([a + b + d + e, details], 1) * 0.5


def start_at_least_squares(heads: nn.ModuleDict, samples: list[Sample], rng: np.random.Generator) -> None:
    """Set the last layer of both paths of every head to the ridge regression on samples.

    The hidden layer keeps its random directions, and starts without modulation.
    """
    for px in EXITS_PX:
        head = cast(ExitHead, heads[str(px)])
        for modulation in (head.modulation1, head.modulation2):
            nn.init.zeros_(modulation.affine.weight)
            nn.init.ones_(modulation.affine.bias)
        channels, hidden = head.conv1.in_channels, head.conv2.in_channels
        size = channels + hidden * 9 + 1
        gram, cross = torch.zeros(size, size), torch.zeros(size, 12)
        for sample in samples:
            features, target = window(sample, px, rng)
            with torch.no_grad():
                x = functional.leaky_relu(head.conv1(features), 0.2)
            columns = torch.cat([features.flatten(2), functional.unfold(x, 3, padding=1)], 1)
            rows = functional.pad(columns[0].T, (0, 1), value=1.0)
            gram += rows.T @ rows / len(rows)
            cross += rows.T @ haar(target)[0].flatten(1).T / len(rows)
        ridge = _RIDGE * gram.diagonal().mean() * torch.eye(size)
        solution = torch.linalg.solve(gram + ridge, cross).T
        state = head.state_dict()
        state["skip.weight"] = solution[:, :channels, None, None]
        state["skip.bias"] = solution[:, -1]
        state["conv2.weight"] = solution[:, channels:-1].reshape(12, hidden, 3, 3)
        state["conv2.bias"] = torch.zeros(12)
        head.load_state_dict(state)


def window(sample: Sample, px: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cut a random window out of the features of one exit, and what belongs to it out of the target."""
    y, x = rng.integers(0, px // 2 - _WINDOW + 1, 2)
    features = sample.features[px][..., y : y + _WINDOW, x : x + _WINDOW].float()
    target = sample.targets[px][..., 2 * y : 2 * (y + _WINDOW), 2 * x : 2 * (x + _WINDOW)].float()
    return features, target


def step_loss(heads: nn.ModuleDict, batch: list[Sample], rng: np.random.Generator) -> Tensor:
    """Return the mean absolute error over a random window of every exit of every sample."""
    losses = []
    for sample in batch:
        for px in EXITS_PX:
            features, target = window(sample, px, rng)
            losses.append(functional.l1_loss(heads[str(px)](features, sample.w), target))
    return torch.stack(losses).mean()


def psnr_db(heads: nn.ModuleDict, samples: list[Sample]) -> dict[int, float]:
    """Return the mean PSNR of every exit, in dB, for a range of 2 ([-1, 1])."""
    result = {}
    with torch.no_grad():
        for px in EXITS_PX:
            errors = [
                functional.mse_loss(
                    heads[str(px)](s.features[px].float(), s.w).clamp(-1, 1),
                    s.targets[px].float().clamp(-1, 1),
                )
                for s in samples
            ]
            result[px] = float(np.mean([10 * math.log10(4 / float(e)) for e in errors]))
    return result


def save_heads(heads: nn.ModuleDict, path: Path) -> None:
    """Write the heads as float16 safetensors, named ``<px>.<parameter>``."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: x.half().contiguous() for key, x in heads.state_dict().items()}, path)


class Trainer:
    """Heads, optimiser and the pool of samples."""

    def __init__(self, sampler: Sampler, seed: int, pool: int, checkpoint: Path) -> None:
        torch.manual_seed(seed)
        self.heads = new_heads()
        self.optimiser = torch.optim.Adam(self.heads.parameters(), lr=_RATE, betas=(0.9, 0.98))
        self.step = 0
        self._rng = np.random.default_rng(seed + 1)
        self._sampler = sampler
        self._checkpoint = checkpoint
        self._size = pool
        self.pool = [sampler.draw() for _ in range(min(pool, 24))]
        if checkpoint.is_file():
            state = torch.load(checkpoint, weights_only=True)
            self.heads.load_state_dict(state["heads"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
        else:
            start_at_least_squares(self.heads, self.pool, self._rng)

    def train_step(self, rate: float) -> float:
        """Add one new sample to the pool, then take three steps on samples of the pool; return the loss."""
        if len(self.pool) >= self._size:
            self.pool.pop(0)
        self.pool.append(self._sampler.draw())
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        for newest in (True, False, False):
            others = self._rng.integers(0, len(self.pool), 4 - newest)
            batch = [self.pool[i] for i in others] + self.pool[-1:] * newest
            loss = step_loss(self.heads, batch, self._rng)
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            self.step += 1
        return float(loss.detach())

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part = self._checkpoint.with_suffix(".part")
        state = {
            "heads": self.heads.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        torch.save(state, part)
        part.replace(self._checkpoint)


def learning_rate(done: float) -> float:
    """Return the learning rate after a share of the time: short warm-up, cosine to a tenth."""
    return _RATE * min(1.0, done / 0.05 + 0.05) * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


@click.command()
@click.option(
    "--minutes", type=click.FloatRange(min=0.1), default=12.0, show_default=True, help="Time to train."
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Weights to write."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the samples and the initial weights.")
@click.option(
    "--pool", type=click.IntRange(min=4), default=60, show_default=True, help="Samples kept (35 MB each)."
)
@click.option(
    "--run", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/exits"), show_default=True
)
def main(minutes: float, out: Path, seed: int, pool: int, run: Path) -> None:
    """Train all exit heads and write them to one file."""
    models = ModelStore()
    generator, mapping = load_generator(models), load_mapping(models, workers=1)
    held_out = Sampler(generator, mapping, seed=10_000 + seed)
    test = [held_out.draw() for _ in range(8)]
    trainer = Trainer(Sampler(generator, mapping, seed), seed, pool, run / "checkpoint.pt")
    click.echo(f"step {trainer.step}: {_describe(psnr_db(trainer.heads, test))}")
    start = saved = time.monotonic()
    with tqdm(total=round(minutes * 60), unit="s", mininterval=5) as bar:
        while (elapsed := time.monotonic() - start) < minutes * 60:
            loss = trainer.train_step(learning_rate(elapsed / (minutes * 60)))
            bar.set_postfix(step=trainer.step, loss=f"{loss:.4f}", refresh=False)
            bar.update(round(elapsed) - bar.n)
            if time.monotonic() - saved > _SAVE_EVERY_S:
                saved = time.monotonic()
                trainer.save()
                save_heads(trainer.heads, out)
                tqdm.write(f"step {trainer.step}: {_describe(psnr_db(trainer.heads, test))}")
    trainer.save()
    save_heads(trainer.heads, out)
    click.echo(f"step {trainer.step}: {_describe(psnr_db(trainer.heads, test))}")


def _describe(values: dict[int, float]) -> str:
    return ", ".join(f"{px} px {value:.2f} dB" for px, value in values.items())


if __name__ == "__main__":
    main()
