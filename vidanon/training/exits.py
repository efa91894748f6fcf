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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from vidanon.models.registry import ModelStore
from vidanon.networks.exit_heads import COEFFICIENTS, EXITS_PX, HIDDEN, ExitHead, new_heads
from vidanon.networks.generator import (
    FULL_PX,
    W_SIZE,
    WIDTHS,
    Block,
    Generator,
    blocks_up_to,
    load_generator,
    load_mapping,
)
from vidanon.networks.runtime import Network, OpenVinoNetwork, graph_from_module
from vidanon.training.precision import quick_precision
from vidanon.types import Float

TRUNCATION = (0.5, 1.0)
"""Range of the truncation towards the mean of w from which training draws."""

_WINDOW, _BORDER = 44, 2
"""Side length of the window of features that a step looks at, and its border that counts for nothing, since
the convolutions see zeros beyond it; pixels."""
_RIDGE = 1e-4
"""Regularisation of the least-squares start, relative to the mean square of the features."""
_SCALED_ON = 6
"""Samples on which the size of features is measured."""
_DETAIL = 2.0
"""What details count, beside averages: a face that is right but soft is what a plain error likes best."""
_RATE = 5e-4
"""Highest learning rate. Four times more destroys the least-squares start before it learns better."""
_AVERAGED = 0.998
"""Decay of the moving average of the weights, which is what is kept."""
HELD_OUT = 16
"""Samples to measure on, and latents that training never sees."""
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


class _Drawing(nn.Module):
    """The generator with the features at its exits and its picture in all their sizes."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, w: Tensor) -> tuple[Tensor, ...]:
        """Map w (1, 512) to the features of every exit and the target of every exit."""
        x, features = self.generator.first(self.generator.constant, w), []
        for block, size in zip(self.generator.blocks, list(WIDTHS)[1:], strict=True):
            x = block(x, w)
            if size * 2 in EXITS_PX:
                features.append(x)
        picture = self.generator.picture(x, w)
        return (*features, *(functional.avg_pool2d(picture, FULL_PX // px) for px in EXITS_PX))


class Sampler:
    """Draw w and make samples, the same ones for the same seed.

    Args:
        generator: draws the pictures, with the precision of finished ones.
        mapping: z to w.
        seed: of the draws.
        latents: float32 (n, 512), where every second w comes from; the others are random.
    """

    def __init__(self, generator: Generator, mapping: Network, seed: int, latents: Float) -> None:
        graph = graph_from_module(_Drawing(generator), (np.zeros((1, W_SIZE), np.float32),))
        self._draw = OpenVinoNetwork(graph, 1, bfloat16=True)
        self._mapping = mapping
        self._latents = latents
        self._rng = np.random.default_rng(seed)
        probe = np.random.default_rng(0).standard_normal((4096, W_SIZE)).astype(np.float32)
        self._mean = mapping(probe)[0].mean(0)

    def draw(self) -> Sample:
        """Return the next sample."""
        z = self._rng.standard_normal((1, W_SIZE)).astype(np.float32)
        truncation = np.float32(self._rng.uniform(*TRUNCATION))
        w = self._mean + truncation * (self._mapping(z)[0] - self._mean)
        if len(self._latents) and self._rng.random() < 0.5:
            w = self._latents[self._rng.integers(len(self._latents))][None]
        found = [torch.from_numpy(x).half() for x in self._draw(w)]
        features, targets = found[: len(EXITS_PX)], found[len(EXITS_PX) :]
        return Sample(
            torch.from_numpy(w),
            dict(zip(EXITS_PX, features, strict=True)),
            dict(zip(EXITS_PX, targets, strict=True)),
        )


def haar(x: Tensor) -> Tensor:
    """Turn a picture (n, 3, 2h, 2w) into wavelet coefficients (n, 12, h, w); undoes ``inverse_haar``."""
    n, c, height, width = x.shape
    a, b, d, e = x.reshape(n, c, height // 2, 2, width // 2, 2).permute(3, 5, 0, 1, 2, 4).flatten(0, 1)
    details = torch.stack([a + b - d - e, a - b + d - e, a - b - d + e], 2).flatten(1, 2)
    return torch.cat([a + b + d + e, details], 1) * 0.5


def start_at_least_squares(
    heads: nn.ModuleDict, generator: Generator, samples: list[Sample], rng: np.random.Generator
) -> None:
    """Set the last layer of both paths of every head to the ridge regression on samples.

    Features are first scaled as the generator's next block scales them, so that what w changes is known from
    the start, and brought to unit size. The hidden layers keep their random directions.
    """
    for block, px in zip(generator.blocks[blocks_up_to(EXITS_PX[0] // 2) :], EXITS_PX, strict=False):
        head = cast(ExitHead, heads[str(px)])
        head.modulation1.load_state_dict(cast(Block, block).up.state_dict())
        for modulation in (head.modulation2, head.modulation3):
            nn.init.zeros_(modulation.affine.weight)
            nn.init.ones_(modulation.affine.bias)
        with torch.no_grad():
            scaled = [head.modulation1(s.features[px].float(), s.w) for s in samples[:_SCALED_ON]]
            size = torch.cat(scaled).square().mean((0, 2, 3)).sqrt() + 1e-3
            for weights in (head.modulation1.affine.weight.T, head.modulation1.affine.bias):
                weights.div_(size)
            solution = _regression(head, [(s, *window(s, px, rng)) for s in samples])
            channels = head.conv1.in_channels
            state = {key: x.clone() for key, x in head.state_dict().items()}
            state["conv1.weight"][HIDDEN:] = solution[:, :channels, None, None]
            state["conv1.bias"][HIDDEN:] = solution[:, -1]
            state["conv3.weight"] = solution[:, channels:-1].reshape(head.conv3.weight.shape)
            state["conv3.bias"] = torch.zeros(COEFFICIENTS)
            head.load_state_dict(state)


def _regression(head: ExitHead, windows: list[tuple[Sample, Tensor, Tensor]]) -> Tensor:
    """Return the ridge regression from skipped and hidden features and 1 to wavelets, float32 (12, n)."""
    size = head.conv1.in_channels + HIDDEN * 9 + 1
    gram, cross = torch.zeros(size, size), torch.zeros(size, COEFFICIENTS)
    for sample, features, target in windows:
        x = head.modulation1(features, sample.w)
        hidden = head.hidden(head.conv1(x)[:, :HIDDEN], sample.w)
        unfolded = functional.unfold(hidden, 3, padding=1)
        rows = functional.pad(torch.cat([x.flatten(2), unfolded], 1)[0].T, (0, 1), value=1.0)
        gram += rows.T @ rows / len(rows)
        cross += rows.T @ haar(target)[0].flatten(1).T / len(rows)
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(size)
    return cast(Tensor, torch.linalg.solve(gram + ridge, cross)).T


def _apply(head: ExitHead, x: Tensor, w: Tensor) -> Tensor:
    """Do what the head does to features (1, c, h, h), with the first modulation on its weights.

    Scaling the features instead, and the gradient of that, would take most of the time.
    """
    weight = head.conv1.weight[..., 0, 0] * head.modulation1.affine(w)
    first = functional.conv2d(x, weight[..., None, None], head.conv1.bias)
    return head.finish(first, w)


def window(sample: Sample, px: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cut a random window out of the features of one exit, and what belongs to it out of the target."""
    y, x = rng.integers(0, px // 2 - _WINDOW + 1, 2)
    features = sample.features[px][..., y : y + _WINDOW, x : x + _WINDOW].float()
    target = sample.targets[px][..., 2 * y : 2 * (y + _WINDOW), 2 * x : 2 * (x + _WINDOW)].float()
    return features, target


def step_loss(heads: nn.ModuleDict, batch: list[Sample], rng: np.random.Generator) -> Tensor:
    """Return the mean absolute error of wavelets over a random window of every exit of every sample."""
    losses = []
    for sample in batch:
        for px in EXITS_PX:
            features, target = window(sample, px, rng)
            with quick_precision("cpu"):
                picture = _apply(cast(ExitHead, heads[str(px)]), features, sample.w)
            error = haar(picture.float()) - haar(target)
            error = error[..., _BORDER:-_BORDER, _BORDER:-_BORDER]
            losses.append(error[:, :3].abs().mean() + _DETAIL * error[:, 3:].abs().mean())
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

    def __init__(
        self, generator: Generator, sampler: Sampler, seed: int, pool: int, checkpoint: Path
    ) -> None:
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
            start_at_least_squares(self.heads, generator, self.pool, self._rng)
        self._average = AveragedModel(self.heads, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGED))  # type: ignore[no-untyped-call]
        if checkpoint.is_file():
            self._average.load_state_dict(state["average"])

    @property
    def average(self) -> nn.ModuleDict:
        """The moving average of the heads, which is what ships."""
        return cast(nn.ModuleDict, self._average.module)

    def train_step(self, rate: float) -> float:
        """Add one new sample to the pool, then take four steps on samples of the pool; return the loss."""
        if len(self.pool) >= self._size:
            self.pool.pop(0)
        self.pool.append(self._sampler.draw())
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        for newest in (True, False, False, False):
            others = self._rng.integers(0, len(self.pool), 4 - newest)
            batch = [self.pool[i] for i in others] + self.pool[-1:] * newest
            loss = step_loss(self.heads, batch, self._rng)
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            self._average.update_parameters(self.heads)
            self.step += 1
        return float(loss.detach())

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        part = self._checkpoint.with_suffix(".part")
        state = {
            "heads": self.heads.state_dict(),
            "average": self._average.state_dict(),
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
@click.option(
    "--latents",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Faces that the mapper made ('vidanon train' keeps them): every second w is one of theirs.",
)
def main(minutes: float, out: Path, seed: int, pool: int, run: Path, latents: Path | None) -> None:
    """Train all exit heads and write them to one file."""
    models = ModelStore()
    generator, mapping = load_generator(models), load_mapping(models, workers=1)
    made = [np.load(path)["w"] for path in sorted(latents.glob("shard-*.npz"))] if latents else []
    other = np.concatenate([np.empty((0, W_SIZE), np.float32), *made])
    held_out = Sampler(generator, mapping, 10_000 + seed, other[:HELD_OUT])
    test = [held_out.draw() for _ in range(HELD_OUT)]
    sampler = Sampler(generator, mapping, seed, other[HELD_OUT:])
    trainer = Trainer(generator, sampler, seed, pool, run / "checkpoint.pt")
    click.echo(f"step {trainer.step}: {_describe(psnr_db(trainer.average, test))}")
    start = saved = time.monotonic()
    with tqdm(total=round(minutes * 60), unit="s", mininterval=5) as bar:
        while (elapsed := time.monotonic() - start) < minutes * 60:
            loss = trainer.train_step(learning_rate(elapsed / (minutes * 60)))
            bar.set_postfix(step=trainer.step, loss=f"{loss:.4f}", refresh=False)
            bar.update(round(elapsed) - bar.n)
            if time.monotonic() - saved > _SAVE_EVERY_S:
                saved = time.monotonic()
                trainer.save()
                save_heads(trainer.average, out)
                tqdm.write(f"step {trainer.step}: {_describe(psnr_db(trainer.average, test))}")
    trainer.save()
    save_heads(trainer.average, out)
    click.echo(f"step {trainer.step}: {_describe(psnr_db(trainer.average, test))}")


def _describe(values: dict[int, float]) -> str:
    return ", ".join(f"{px} px {value:.2f} dB" for px, value in values.items())


if __name__ == "__main__":
    main()
