"""Train the segmenter: ``python -m vidanon.training.segmenter --minutes 18 --out FILE``.

Labels come from the generator's own features (:mod:`vidanon.training.parts`): no label made by a person, no
other segmentation network. The pictures are the ones that ``vidanon train`` draws. Labels and the state of
the training are kept in the folder of the run and picked up again by the next call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from vidanon.models.registry import ModelStore
from vidanon.networks.generator import load_generator
from vidanon.networks.runtime import network_from_module
from vidanon.networks.segmenter import CROP_PX, MAP_PX, Part, Segmenter
from vidanon.training.augment import hazed, moved, relit, spoil
from vidanon.training.averages import follow
from vidanon.training.config import DataConfig
from vidanon.training.data import Samples, load_samples
from vidanon.training.occluders import add_occluder
from vidanon.training.parts import ClusterMap, fit_clusters, label_picture, name_clusters
from vidanon.training.precision import quick_precision
from vidanon.types import Float, UInt8

CLUSTER_SAMPLES = 60
HELD_OUT = 64
_BATCH = 16
_RATE = 3e-3
_KEEP = 0.99
"""Share of the moving average that a step leaves."""
_WEIGHTS = (1.0, 1.0, 2.5, 1.2, 2.0, 1.0, 1.5)
"""Weight of each part in the loss: small parts count more, and an eye is never to be taken for a hand."""
_OCCLUDED = 0.55
"""Share of the training pictures with something in front of the face."""
_SAVE_EVERY_S = 60.0
_CHUNK = 32


@dataclass(frozen=True, slots=True)
class Labelled:
    """Generated pictures, what their pixels show, and where their faces are.

    Attributes:
        pictures: uint8 RGB (n, 128, 128, 3).
        labels: uint8 (n, 128, 128).
        landmarks: float32 (n, 478, 2), unit crop.
    """

    pictures: UInt8
    labels: UInt8
    landmarks: Float

    def take(self, rows: slice) -> Labelled:
        """Return some rows."""
        return Labelled(self.pictures[rows], self.labels[rows], self.landmarks[rows])


def make_labels(samples: Samples, models: ModelStore, run: Path, seed: int) -> Labelled:
    """Label samples by the clusters of their features.

    Args:
        samples: what to label; the clusters are fitted to and named on the first 60.
        models: where the generator is.
        run: folder that keeps the clusters and the maps of cluster numbers, for the next call.
        seed: of the clustering.
    """
    maps = _cluster_maps(samples.w, models, run, seed)
    first = slice(0, CLUSTER_SAMPLES)
    names = name_clusters(maps[first], samples.pictures[first], samples.landmarks[first])
    click.echo("clusters: " + ", ".join(f"{k} {name.name.lower()}" for k, name in enumerate(names)))
    rows = zip(maps, samples.pictures, samples.landmarks, strict=True)
    labels = [label_picture(found, names, *rest) for found, *rest in tqdm(rows, "labels", len(maps))]
    return Labelled(samples.pictures, np.stack(labels), samples.landmarks)


def _cluster_maps(latents: Float, models: ModelStore, run: Path, seed: int) -> UInt8:
    """Return the cluster numbers of all latents, uint8 (n, 64, 64); made once, then read from the run."""
    run.mkdir(parents=True, exist_ok=True)
    kept = run / f"clusters-{seed}.npz"
    generator = load_generator(models)
    if kept.is_file():
        clusters = ClusterMap(generator, **np.load(kept))
    else:
        clusters = fit_clusters(generator, latents[:CLUSTER_SAMPLES], seed)
        arrays = clusters.arrays()
        np.savez(kept, mean=arrays["mean"], scale=arrays["scale"], centers=arrays["centers"])
    network = network_from_module(clusters, (latents[:1],), workers=1)
    maps = []
    for start in tqdm(range(0, len(latents), _CHUNK), "clusters"):
        path = run / f"clusters-{seed}-{start:06d}.npy"
        if not path.is_file():
            found = [network(row[None])[0] for row in latents[start : start + _CHUNK]]
            part = path.with_suffix(".part.npy")
            np.save(part, np.concatenate(found).astype(np.uint8))
            part.replace(path)
        maps.append(np.load(path))
    return np.concatenate(maps)[: len(latents)]


def view(data: Labelled, row: int, random: np.random.Generator) -> tuple[UInt8, Float]:
    """Make a training example of a picture: lit anew, something in front, moved, mirrored, spoilt.

    Returns:
        uint8 RGB (128, 128, 3) and the share of each part per cell, float32 (7, 64, 64).
    """
    picture = relit(data.pictures[row], data.landmarks[row], random)
    labels = data.labels[row]
    if random.random() < _OCCLUDED:
        other = int(random.integers(len(data.pictures)))
        for _ in range(1 + (random.random() < 0.25)):
            picture, labels = add_occluder(picture, labels, data.pictures[other], data.labels[other], random)
    matrix = moved(random, (0, 0.1), 0.12, 0.04)
    border = int(random.choice((cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE)))
    seen, shown = (
        np.asarray(cv2.warpAffine(x, matrix, (CROP_PX, CROP_PX), flags=flags, borderMode=border), np.uint8)
        for x, flags in ((picture, cv2.INTER_LINEAR), (labels, cv2.INTER_NEAREST))
    )
    return spoil(hazed(seen, random), random), shares(shown)


def shares(labels: UInt8) -> Float:
    """Turn labels (128, 128) into the share of each part per cell, float32 (7, 64, 64)."""
    one_hot = np.eye(len(Part), dtype=np.float32)[labels]
    small = cv2.resize(one_hot, (MAP_PX, MAP_PX), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small.transpose(2, 0, 1))


def as_input(pictures: UInt8) -> Tensor:
    """Turn uint8 pictures (n, 128, 128, 3) into the network's input."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def batches(data: Labelled, seed: int, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield endless batches; what a step sees depends on the seed and its number alone."""
    while True:
        random = np.random.default_rng([seed, step])
        rows = random.integers(0, len(data.pictures), _BATCH)
        views = [view(data, int(row), random) for row in rows]
        yield as_input(np.stack([v[0] for v in views])), torch.from_numpy(np.stack([v[1] for v in views]))
        step += 1


def iou(module: Segmenter, pictures: UInt8, labels: UInt8) -> dict[str, float]:
    """Return the intersection over union of each part, NaN where it is in neither."""
    counts = np.zeros((len(Part), len(Part)))
    module.eval()
    with torch.inference_mode():
        for start in range(0, len(pictures), 32):
            found = module(as_input(pictures[start : start + 32])).argmax(1).numpy()
            truth = np.stack([shares(x).argmax(0) for x in labels[start : start + 32]])
            np.add.at(counts, (truth.ravel(), found.ravel()), 1)
    both = np.diag(counts)
    either = counts.sum(0) + counts.sum(1) - both
    return {p.name.lower(): float(both[p] / either[p]) if either[p] else math.nan for p in Part}


class Trainer:
    """Network, optimiser and the moving average of the weights that is shipped."""

    def __init__(self, seed: int, checkpoint: Path) -> None:
        torch.manual_seed(seed)
        # This memory order halves the time of separable convolutions on CPU.
        self.module, self.average = Segmenter(), Segmenter()
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(self.module.parameters(), lr=_RATE, weight_decay=1e-3)
        self.step, self.seconds = 0, 0.0
        self._checkpoint = checkpoint
        self._weights = torch.tensor(_WEIGHTS)
        self.average.load_state_dict(self.module.state_dict())
        if checkpoint.is_file():
            state = torch.load(checkpoint, weights_only=True)
            self.module.load_state_dict(state["module"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds = state["step"], state["seconds"]

    def train_step(self, crops: Tensor, truth: Tensor, done: float) -> float:
        """Take one step; ``done`` is the share of the training that is behind. Return the loss."""
        rate = (
            _RATE * min(1.0, self.step / 50 + 0.02) * (0.02 + 0.49 * (1 + math.cos(math.pi * min(done, 1))))
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.module.train()
        weighted = truth * self._weights[:, None, None]
        with quick_precision("cpu"):
            logits = self.module(crops.contiguous(memory_format=torch.channels_last)).float()
        loss = -(weighted * functional.log_softmax(logits, 1)).sum(1).mean()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        follow(self.average, self.module, self.step, _KEEP)
        return float(loss.detach())

    def save(self, out: Path) -> None:
        """Write the state whole or not at all, and the averaged weights as float16."""
        part = self._checkpoint.with_suffix(".part")
        parts = {x: getattr(self, x).state_dict() for x in ("module", "average", "optimiser")}
        torch.save(parts | {"step": self.step, "seconds": self.seconds}, part)
        part.replace(self._checkpoint)
        state = self.average.state_dict()
        # Statistics of the batch norms keep their precision: variances can be tiny.
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: x if "running" in k or "num_" in k else x.half() for k, x in state.items()}, out)


def describe(module: Segmenter, data: Labelled, seed: int) -> str:
    """Measure held-out pictures as they are, and with something in front of each."""
    random = np.random.default_rng(seed)
    count = len(data.pictures)
    others = random.permutation(count)
    covered = [
        add_occluder(data.pictures[i], data.labels[i], data.pictures[j], data.labels[j], random)
        for i, j in enumerate(others)
    ]
    plain = iou(module, data.pictures, data.labels)
    hidden = iou(module, np.stack([x[0] for x in covered]), np.stack([x[1] for x in covered]))
    return "IoU " + ", ".join(f"{name} {plain[name]:.3f}/{hidden[name]:.3f}" for name in plain)


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.1),
    default=18.0,
    show_default=True,
    help="Processor time to train for: other work on the machine does not shorten it.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Weights to write."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("runs/train/data/drawn"),
    show_default=True,
    help="Pictures that 'vidanon train' has drawn.",
)
@click.option("--count", type=click.IntRange(min=256), default=1024, show_default=True, help="Pictures used.")
@click.option("--seed", default=0, show_default=True, help="Seed of clusters, views and initial weights.")
@click.option(
    "--run",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/segmenter"),
    show_default=True,
)
def main(minutes: float, out: Path, data: Path, count: int, seed: int, run: Path) -> None:
    """Label generated pictures, train the segmenter on them and write its weights."""
    torch.set_num_threads(1)
    samples = load_samples(data, math.ceil(count / DataConfig().shard)).take(slice(0, count))
    labelled = make_labels(samples, ModelStore(), run, seed)
    held_out, used = labelled.take(slice(0, HELD_OUT)), labelled.take(slice(HELD_OUT, None))
    trainer = Trainer(seed, run / "checkpoint.pt")
    last, saved = time.process_time(), time.monotonic()
    with tqdm(total=round(minutes * 60), unit="s", mininterval=5) as bar:
        for crops, truth in batches(used, seed, trainer.step):
            loss = trainer.train_step(crops, truth, trainer.seconds / (minutes * 60))
            trainer.seconds, last = trainer.seconds + time.process_time() - last, time.process_time()
            bar.set_postfix(step=trainer.step, loss=f"{loss:.3f}", refresh=False)
            bar.update(round(trainer.seconds) - bar.n)
            if time.monotonic() - saved > _SAVE_EVERY_S:
                saved = time.monotonic()
                trainer.save(out)
                tqdm.write(f"step {trainer.step}: {describe(trainer.average, held_out, seed)}")
            if trainer.seconds >= minutes * 60:
                break
    trainer.save(out)
    spent = trainer.seconds / 60
    click.echo(f"step {trainer.step}, {spent:.1f} min: {describe(trainer.average, held_out, seed)}")


if __name__ == "__main__":
    main()
