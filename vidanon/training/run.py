"""A whole training run in one folder: samples, surrogate, networks; each part is kept and not made again."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidanon.models.registry import ModelStore
from vidanon.networks.weights import save_weights
from vidanon.stages.head_pose import HeadPose
from vidanon.training.config import Stage, TrainConfig
from vidanon.training.data import (
    FaceReader,
    LatentSource,
    Samples,
    join,
    load_samples,
    make_shards,
    missing_shards,
)
from vidanon.training.feed import Feeder
from vidanon.training.made import lead
from vidanon.training.readers import GeneratorReader
from vidanon.training.sheet import draw_sheet
from vidanon.training.surrogate import Surrogate, explained, train_surrogate
from vidanon.training.trainer import Reader, Report, Spread, Trainer
from vidanon.training.traits import TraitSpace
from vidanon.training.turn import TurnReader, fit_turn

HELD_OUT_SEED_OFFSET = 10_000
MADE_SEED_OFFSET = 20_000
FRESH_SEED_OFFSET = 1_000
LOG_EVERY = 50
Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called with what is being done, how far it is, of how much, and figures."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the parts of a run lie."""

    root: Path

    @property
    def checkpoint(self) -> Path:
        """Everything that a stopped run needs to go on."""
        return self.root / "checkpoint.pt"

    @property
    def weights(self) -> Path:
        """What the run is for: attribute encoder and mapper as the package ships them."""
        return self.root / "mapper.safetensors"

    def data(self, kind: str) -> Path:
        """Return the folder of samples: ``drawn``, ``made`` or ``held-out``."""
        return self.root / "data" / kind

    def surrogate(self, name: str) -> Path:
        """Return the file of a surrogate: ``first`` (random faces), or that of a stage."""
        return self.root / f"surrogate-{name}.pt"


class Run:
    """Does what a configuration says."""

    def __init__(
        self,
        config: TrainConfig,
        root: Path,
        models: ModelStore,
        device: str,
        workers: int,
        progress: Progress,
        start: Path | None = None,
    ) -> None:
        self.config, self.folder, self.models = config, Folder(root), models
        self._start = start
        self.device, self.workers, self.progress = device, workers, progress
        root.mkdir(parents=True, exist_ok=True)
        self._latents = LatentSource(models, config.data.truncation, config.seed)
        self._reader: FaceReader | None = None
        self.spread = Spread(torch.from_numpy(self._latents.mean), torch.from_numpy(self._latents.std))

    def execute(self) -> Path:
        """Run everything that is not done yet; return the weights."""
        drawn = self._samples("drawn", self.config.data.drawn, self._draw(0))
        held_out = self._samples("held-out", self.config.data.held_out, self._draw(HELD_OUT_SEED_OFFSET))
        samples, space, surrogate = drawn, self._space(drawn), None
        if self.config.data.made:
            # It only has to know the way; what lies there is read by the real networks.
            first = self._surrogate("first", drawn, space, held_out)
            made = self._samples("made", self.config.data.made, lambda shard: self._lead(shard, first, space))
            samples = join([drawn, made])
            space = self._space(samples)
        trainer = Trainer(self.config, space, self.spread, self.device)
        if self.folder.checkpoint.is_file():
            trainer.load(self.folder.checkpoint)
        elif self._start is not None:
            trainer.start_from(self._start, space)
        for number, stage in enumerate(self.config.stages):
            name = f"stage-{number + 1}"
            if stage.fresh:
                make = partial(self._make, trainer, self._feeder(samples, space), number)
                samples = join([samples, self._samples(name, stage.fresh, make)])
            if trainer.stage > number:
                continue
            if stage.reader == "surrogate" and (stage.fresh or surrogate is None):
                surrogate = self._surrogate(name, samples, space, held_out)
            reader = self._trait_reader(stage, space, surrogate)
            self._train(trainer, self._feeder(samples, space), reader, held_out)
        mapper = deepcopy(trainer.result).cpu()
        fit_turn(mapper, drawn, TurnReader(self.models, self._face_reader(), self.workers))
        save_weights(mapper, self.folder.weights)
        draw_sheet(mapper, held_out, self.models, self.folder.root / "sheet-last.png")
        return self.folder.weights

    def _feeder(self, samples: Samples, space: TraitSpace) -> Feeder:
        white = self.spread.whiten(torch.from_numpy(samples.w))
        return Feeder(samples, space.traits_of(samples), white, self.config)

    def _make(self, trainer: Trainer, feeder: Feeder, number: int, shard: int) -> Any:
        """Return w of faces that the mapper makes before stage ``number``."""
        crossing = Stage(batch=self.config.data.shard, cross=self.config.stages[number].cross)
        return trainer.latents(feeder.draw(crossing, FRESH_SEED_OFFSET + number, shard)).cpu().numpy()

    def _draw(self, offset: int) -> Callable[[int], Any]:
        return lambda shard: self._latents.draw(offset + shard, self.config.data.shard)

    def _lead(self, shard: int, surrogate: Surrogate, space: TraitSpace) -> Any:
        number = MADE_SEED_OFFSET + shard
        random = np.random.default_rng([self.config.seed, number])
        return lead(self._latents.draw(number, self.config.data.shard), surrogate, space, random)

    def _samples(self, kind: str, count: int, latents: Callable[[int], Any]) -> Samples:
        folder = self.folder.data(kind)
        total = -(-count // self.config.data.shard)
        missing = missing_shards(folder, total)
        if missing:
            shards = make_shards(folder, missing, latents, self._face_reader(), self.workers)
            for i, _ in enumerate(shards):
                self.progress(f"samples ({kind})", total - len(missing) + i + 1, total, {})
        return load_samples(folder, total)

    def _face_reader(self) -> FaceReader:
        if self._reader is None:
            self._reader = FaceReader(self.models, self.workers)
        return self._reader

    def _space(self, samples: Samples) -> TraitSpace:
        space = TraitSpace()
        space.fit(samples, HeadPose(self.models))
        return space

    def _surrogate(self, name: str, samples: Samples, space: TraitSpace, held_out: Samples) -> Surrogate:
        config, path = self.config.surrogate, self.folder.surrogate(name)
        if path.is_file():
            surrogate = Surrogate(config)
            surrogate.load_state_dict(torch.load(path, weights_only=True))
            return surrogate.eval().requires_grad_(False)
        surrogate = train_surrogate(
            torch.from_numpy(samples.w),
            space.traits_of(samples),
            config,
            self.config.seed,
            (self.spread.mean, self.spread.std),
            lambda step, steps, losses: self.progress(f"surrogate ({name})", step, steps, losses),
        )
        figures = explained(surrogate, torch.from_numpy(held_out.w), space.traits_of(held_out))
        self.progress(f"surrogate ({name}) held out", config.steps, config.steps, figures)
        part = path.with_suffix(".part")
        torch.save(surrogate.state_dict(), part)
        part.replace(path)
        return surrogate

    def _trait_reader(self, stage: Stage, space: TraitSpace, surrogate: Surrogate | None) -> Reader:
        if stage.reader == "generator":
            reader: Reader = GeneratorReader(self.models, space).to(self.device)
            return reader
        assert surrogate is not None  # see execute
        network = surrogate.to(self.device)
        return lambda w: (network.dealt(w), None)

    def _train(self, trainer: Trainer, feeder: Feeder, reader: Reader, held_out: Samples) -> None:
        from torch.utils.tensorboard import SummaryWriter

        saved = time.monotonic()
        recent: list[dict[str, float]] = []
        with SummaryWriter(str(self.folder.root / "log")) as log:
            for report in trainer.run_stage(feeder, reader):
                recent.append(report.losses)
                if report.step % LOG_EVERY == 0:
                    self._log(log, report, mean_of(recent))
                    recent.clear()
                if report.step % self.config.sheet_every == 0:
                    draw_sheet(trainer.result, held_out, self.models, self._sheet_path(report))
                if time.monotonic() - saved > self.config.save_every_s:
                    self._save(trainer)
                    saved = time.monotonic()
        self._save(trainer)

    def _sheet_path(self, report: Report) -> Path:
        return self.folder.root / f"sheet-{report.stage}-{report.step:06d}.png"

    def _log(self, log: Any, report: Report, losses: dict[str, float]) -> None:
        before = sum(stage.steps for stage in self.config.stages[: report.stage])
        for name, value in losses.items():
            log.add_scalar(f"loss/{name}", value, before + report.step)
        stage = self.config.stages[report.stage]
        self.progress(f"stage {report.stage + 1} ({stage.reader})", report.step, stage.steps, losses)

    def _save(self, trainer: Trainer) -> None:
        trainer.save(self.folder.checkpoint)
        save_weights(trainer.result, self.folder.weights)


def mean_of(steps: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every loss over the steps that had it."""
    names = {name for losses in steps for name in losses}
    return {name: float(np.mean([x[name] for x in steps if name in x])) for name in sorted(names)}
