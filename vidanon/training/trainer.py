"""The training loop: attribute encoder and mapper, through the surrogate or the real networks.

Everything that a step does follows from the seed and its number, so a run that was killed goes on from its
last checkpoint as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vidanon.networks.mapper import AttributeMapper
from vidanon.networks.weights import take_weights
from vidanon.training.config import Stage, TrainConfig
from vidanon.training.feed import Feeder, Inputs
from vidanon.training.losses import Discriminator, LossTerms, discriminator_loss
from vidanon.training.precision import quick_precision
from vidanon.training.surrogate import schedule
from vidanon.training.traits import Traits, TraitSpace

GRADIENT_LIMIT = 5.0
FIRST_AVERAGED_STEP = 200
WEIGHT_AVERAGE = 0.998
Reader = Callable[[Tensor], tuple[Traits, Tensor | None]]


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation of the generator's w, (512,) each."""

    mean: Tensor
    std: Tensor

    def whiten(self, w: Tensor) -> Tensor:
        """Return w (n, 512) in units of its spread."""
        return (w - self.mean) / self.std


@dataclass(frozen=True, slots=True)
class Report:
    """Where a run is: stage, step of the stage, and the losses since the last report."""

    stage: int
    step: int
    losses: dict[str, float]


class Trainer:
    """Networks, optimisers and where the run is."""

    def __init__(self, config: TrainConfig, space: TraitSpace, spread: Spread, device: str) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.stage = self.step = 0
        self.spread = Spread(spread.mean.to(device), spread.std.to(device))
        self.model = AttributeMapper()
        self._take_units(space, spread)
        # Convolutions on a CPU run faster with channels last.
        self.model.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = get_ema_multi_avg_fn(WEIGHT_AVERAGE)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        self.discriminator = Discriminator().to(device)
        self.terms = LossTerms(space).to(device)
        self._optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.01)
        self._critic = torch.optim.Adam(self.discriminator.parameters(), lr=4e-4, betas=(0.0, 0.99))

    def _take_units(self, space: TraitSpace, spread: Spread) -> None:
        """Give the mapper the units that training standardises its inputs with."""
        self.model.mapper.w_mean = spread.mean.clone()
        self.model.blendshape_mean = space.expression_mean.clone()
        self.model.blendshape_scale = space.expression_scale.clone()
        self.model.geometry.load_state_dict(space.geometry.state_dict())

    @property
    def result(self) -> AttributeMapper:
        """The averaged networks: what is measured, drawn and shipped."""
        return cast(AttributeMapper, self.average.module).eval()

    def run_stage(self, feeder: Feeder, reader: Reader) -> Iterator[Report]:
        """Train to the end of the stage; yield after every step, for the caller to save, draw and stop."""
        stage = self.config.stages[self.stage]
        self._set_modes()
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(feeder.draw, stage, self.stage, self.step)
            while self.step < stage.steps:
                inputs = coming.result()
                coming = ahead.submit(feeder.draw, stage, self.stage, self.step + 1)
                losses = self._train_step(stage, inputs, reader)
                self.step += 1
                yield Report(self.stage, self.step, losses)
        self.stage, self.step = self.stage + 1, 0

    @torch.no_grad()
    def latents(self, inputs: Inputs) -> Tensor:
        """Return what the averaged networks make of a batch, w (n, 512)."""
        model, crops = self.result, inputs.crop.to(self.device)
        codes = model.attributes(crops)
        identity, told = inputs.batch.identity.to(self.device), inputs.expression.to(self.device)
        return cast(Tensor, model.mapper(identity, codes, told))

    def _set_modes(self) -> None:
        self.model.train()
        if self.stage > 0:
            # Small batches of a later stage would upset the statistics of the first.
            self.model.attributes.eval()

    def _train_step(self, stage: Stage, inputs: Inputs, reader: Reader) -> dict[str, float]:
        share = schedule(self.step / stage.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = stage.rate * share
        batch = inputs.batch.to(self.device)
        crops = inputs.crop.to(self.device, memory_format=torch.channels_last)
        with quick_precision(self.device):
            codes = self.model.attributes(crops)
        w = self.model.mapper(batch.identity, codes.float(), inputs.expression.to(self.device))
        white = self.spread.whiten(w)
        seen, picture = reader(w)
        terms = self.terms(seen, white, batch, stage.losses, picture)
        if stage.losses.adversarial:
            terms["adversarial"] = (
                stage.losses.adversarial * functional.softplus(-self.discriminator(white)).mean()
            )
        loss = torch.stack(list(terms.values())).sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_LIMIT)
        self._optimiser.step()
        if self.stage == 0 and self.step < FIRST_AVERAGED_STEP:
            self.average.n_averaged.zero_()  # makes the next line copy
        self.average.update_parameters(self.model)
        if stage.losses.adversarial:
            terms["discriminator"] = self._train_critic(stage, batch.white, white)
        return {name: float(x.detach()) for name, x in terms.items()}

    def _train_critic(self, stage: Stage, real: Tensor, fake: Tensor) -> Tensor:
        for group in self._critic.param_groups:
            group["lr"] = stage.discriminator_rate
        loss = discriminator_loss(self.discriminator, real, fake, stage.r1)
        self._critic.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._critic.step()
        return loss

    def save(self, path: Path) -> None:
        """Write a checkpoint whole or not at all."""
        parts: dict[str, Any] = {name: getattr(self, name).state_dict() for name in self._PARTS}
        part = path.with_name(path.name + ".part")
        torch.save(parts | {"stage": self.stage, "step": self.step}, part)
        part.replace(path)

    def start_from(self, weights: Path, space: TraitSpace) -> None:
        """Give the networks the weights of an earlier run; optimisers and discriminator begin anew.

        The units of the inputs stay those of this run's samples.

        Raises:
            ModelsError: the file is missing, or does not fit the networks.
        """
        take_weights(self.model, weights)
        self._take_units(space, self.spread)
        self.average.module.load_state_dict(self.model.state_dict())

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        for name in self._PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.stage, self.step = state["stage"], state["step"]

    _PARTS = ("model", "average", "discriminator", "_optimiser", "_critic")
