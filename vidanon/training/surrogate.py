"""A network that tells from w alone what the frozen networks would read in its picture.

Generator and readers cost hundreds of milliseconds a face, this costs microseconds, so losses can be taken
through it; what was learned so is checked, and finished, with the real networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vidanon.networks.mapper import W_SIZE
from vidanon.training.config import SurrogateConfig
from vidanon.training.precision import quick_precision
from vidanon.training.traits import TRAITS_SIZE, Traits, split

WEIGHT_AVERAGE = 0.99
"""Quick: a surrogate is trained for a few hundred steps only: with more it learns its samples by heart."""
Progress = Callable[[int, int, dict[str, float]], None]


class Member(nn.Module):
    """Residual MLP over the whitened w."""

    w_mean: Tensor
    w_std: Tensor

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("w_mean", torch.zeros(W_SIZE))
        self.register_buffer("w_std", torch.ones(W_SIZE))
        self.first = nn.Linear(W_SIZE, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width)) for _ in range(depth - 1)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, TRAITS_SIZE))
        self.linear = nn.Linear(W_SIZE, TRAITS_SIZE)

    def flat(self, w: Tensor) -> Tensor:
        """Return the traits of w (n, 512) side by side."""
        white = (w - self.w_mean) / self.w_std
        x = self.first(white)
        for block in self.blocks:
            x = x + block(x)
        return cast(Tensor, self.last(x) + self.linear(white))

    def forward(self, w: Tensor) -> Traits:
        """Return the traits of w (n, 512)."""
        return split(self.flat(w))


class Surrogate(nn.Module):
    """Several networks that learned the same samples from different beginnings.

    Together they read new faces better than one, and what one of them is wrong about the others do not
    always confirm, so the mapper gains less by it.
    """

    def __init__(self, config: SurrogateConfig) -> None:
        super().__init__()
        self.members = nn.ModuleList(Member(config.width, config.depth) for _ in range(config.members))

    @property
    def w_std(self) -> Tensor:
        """Standard deviation of w, (512,)."""
        return cast(Member, self.members[0]).w_std

    @property
    def w_mean(self) -> Tensor:
        """Mean of w, (512,)."""
        return cast(Member, self.members[0]).w_mean

    def forward(self, w: Tensor) -> Traits:
        """Return the traits of w (n, 512), the mean over all members."""
        seen = [member(w) for member in self.members]
        flat = torch.stack([traits.flat() for traits in seen]).mean(0)
        return split(flat)

    def dealt(self, w: Tensor) -> Traits:
        """Return the traits of w (n, 512), each row read by one member only: what training can afford."""
        parts = w.chunk(len(self.members))
        read = [member(part).flat() for member, part in zip(self.members, parts, strict=False)]
        return split(torch.cat(read))


def surrogate_loss(flat: Tensor, truth: Traits) -> Tensor:
    """Return how far a prediction is from the truth; traits are standardised, so squares compare."""
    seen = split(flat)
    cosine = (seen.embedding * truth.embedding).sum(1).mean()
    squares = [
        functional.mse_loss(getattr(seen, name), getattr(truth, name))
        for name in ("pose", "gaze", "landmarks", "expression", "thumbnail")
    ]
    return 3 * (1 - cosine) + torch.stack(squares).mul(torch.tensor([1.0, 0.5, 1.0, 1.0, 0.5])).sum()


def train_surrogate(
    w: Tensor,
    truth: Traits,
    config: SurrogateConfig,
    seed: int,
    spread: tuple[Tensor, Tensor],
    progress: Progress,
) -> Surrogate:
    """Train a surrogate from nothing.

    Args:
        w: float32 (n, 512).
        truth: their traits.
        config: size and schedule.
        seed: of weights and order.
        spread: mean and standard deviation of w, (512,) each.
        progress: called with step, steps (over all members) and the losses.
    """
    torch.manual_seed(seed)
    surrogate = Surrogate(config)
    total = config.members * config.steps
    for i, member in enumerate(cast("Iterable[Member]", surrogate.members)):
        member.w_mean, member.w_std = spread
        random = np.random.default_rng([seed, i])
        for step, loss in _train_member(member, w, truth, config, random):
            if step % 100 == 0:
                progress(i * config.steps + step, total, {"loss": loss})
    return surrogate.eval().requires_grad_(False)


def _train_member(
    member: Member, w: Tensor, truth: Traits, config: SurrogateConfig, random: np.random.Generator
) -> Iterator[tuple[int, float]]:
    """Train one member in place; yield the number of steps done and the loss after every step."""
    average = get_ema_multi_avg_fn(WEIGHT_AVERAGE)  # type: ignore[no-untyped-call]
    averages = AveragedModel(member, multi_avg_fn=average)
    optimiser = torch.optim.AdamW(member.parameters(), lr=config.rate, weight_decay=0.02)
    for step in range(config.steps):
        rows = torch.from_numpy(random.integers(0, len(w), config.batch))
        for group in optimiser.param_groups:
            group["lr"] = config.rate * schedule(step / config.steps)
        with quick_precision("cpu"):
            flat = member.flat(w[rows])
        loss = surrogate_loss(flat.float(), truth[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        averages.update_parameters(member)
        yield step + 1, float(loss.detach())
    member.load_state_dict(averages.module.state_dict())


def schedule(done: float) -> float:
    """Return the learning rate after a share of the steps: short warm-up, then cosine to 1 %."""
    return min(1.0, done / 0.04 + 0.02) * (0.01 + 0.495 * (1 + math.cos(math.pi * min(done, 1.0))))


def explained(surrogate: Surrogate | Member, w: Tensor, truth: Traits) -> dict[str, float]:
    """Return the mean cosine of the embeddings, and the share of variance explained of the other traits."""
    with torch.no_grad():
        seen = surrogate(w)
    result = {"embedding_cosine": float((seen.embedding * truth.embedding).sum(1).mean())}
    for name in ("pose", "gaze", "landmarks", "expression", "thumbnail"):
        a, b = getattr(seen, name), getattr(truth, name)
        result[name] = float(1 - (a - b).pow(2).sum() / (b - b.mean(0)).pow(2).sum())
    return result
