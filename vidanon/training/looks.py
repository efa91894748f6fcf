r"""Teach the network whose features tell apparent sex, age, ancestry, beard and glasses of a face.

    python -m vidanon.training.looks --samples runs/train/data/drawn --faceres models/faceres.json \
        --labelled-faces utkface --out vidanon/models/weights/looks.safetensors

It learns on generated portraits: those that ``vidanon train`` drew and more of the same kind. FaceRes, which
does not ship, says what they look like, and the network learns its features too; ancestry, beards and glasses
are spread from portraits read by eye and every second photograph of UTKFace by probes on these features. The
other photographs are for measuring. What is made lies in the folder of the run and is picked up again by the
next call. The linear readers of the features are fitted with the bank (:mod:`vidanon.training.bank`).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import click
import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from vidanon.identity.bank import ADULT_YEARS, ANCESTRIES
from vidanon.models.registry import ModelStore
from vidanon.networks.look_reader import CROP_PX, FEATURE_SIZE, LookNet
from vidanon.stages.synthesize import as_input
from vidanon.stages.workers import ordered_map
from vidanon.training.augment import degrade, moved
from vidanon.training.averages import follow
from vidanon.training.data import FaceReader, LatentSource, load_samples
from vidanon.training.faceres import FEATURES, FaceRes
from vidanon.training.photographs import Photographs, read_photographs
from vidanon.training.precision import quick_precision
from vidanon.training.probes import balanced, predict, ridge
from vidanon.training.read_by_eye import BEARDED, PORTRAITS, WITH_GLASSES, ancestry_of, sex_of
from vidanon.types import Float, UInt8

SCORES, ANCESTRY = 9, slice(3, 7)
"""Columns of the labels: female, age in centuries, child, the four ancestries of the bank, beard, glasses."""
TRUNCATION = (0.6, 1.0)
SHARD = 512
SHARDS = 24
FIRST_SHARD = 1000
"""Beyond the numbers of the shards that training draws, so that no face is drawn twice."""
WORKERS = 2
BATCH = 64
RATE = 2e-3
SCALE, TILT, SHIFT = (0.02, 0.07), 0.1, 0.025
"""Of the views of a portrait: mean and spread of the logarithm of size, spreads of tilt and shift."""
PROBE_RIDGE, TRAIT_RIDGE = 3.0, 1.0
AGE_SCALE = 10.0
"""Ages differ by so many decades in units of the loss."""
KEEP = 0.995
"""Share of the moving average that a step leaves."""
SAVE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Portraits:
    """Generated portraits and what FaceRes says of them, one row each.

    Attributes:
        pictures: uint8 RGB (n, 128, 128, 3), FFHQ alignment.
        features: float32 (n, 1024).
        female: float32 (n,), 0 male .. 1 female.
        age: float32 (n,), years.
    """

    pictures: UInt8
    features: Float
    female: Float
    age: Float


def draw(models: ModelStore, graph: Path, run: Path) -> Iterator[Portraits]:
    """Draw portraits and have FaceRes read them, shard by shard; what lies in the run is not made again."""
    missing = [s for s in range(FIRST_SHARD, FIRST_SHARD + SHARDS) if not _shard(run, s).is_file()]
    if missing:
        reader, faceres = FaceReader(models, WORKERS), FaceRes(graph, WORKERS)
        latents = LatentSource(models, TRUNCATION, seed=1)

        def portrait(w: Float) -> Portraits:
            picture = reader.picture(w)
            small = cv2.resize(picture, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA)
            return Portraits(np.asarray(small, np.uint8)[None], *faceres(picture[None]))

        with ThreadPoolExecutor(WORKERS) as pool:
            for shard in tqdm(missing, "portraits"):
                drawn = ordered_map(pool, portrait, list(latents.draw(shard, SHARD)), ahead=2 * WORKERS)
                _write(_shard(run, shard), join(list(drawn)))
    for shard in range(FIRST_SHARD, FIRST_SHARD + SHARDS):
        yield _read(_shard(run, shard))


def read_samples(folder: Path, graph: Path, run: Path) -> Portraits:
    """Return the samples of ``vidanon train`` with what FaceRes says of them; read once."""
    kept = run / "samples.npz"
    if not kept.is_file():
        samples, faceres = (
            load_samples(folder, len(list(folder.glob("shard-*.npz")))),
            FaceRes(graph, WORKERS),
        )
        with ThreadPoolExecutor(WORKERS) as pool:
            read = ordered_map(pool, lambda x: faceres(x[None]), samples.pictures, ahead=2 * WORKERS)
            parts = [
                Portraits(p[None], *r) for p, r in zip(samples.pictures, tqdm(read, "samples"), strict=True)
            ]
        _write(kept, join(parts))
    return _read(kept)


def join(parts: list[Portraits]) -> Portraits:
    """Put portraits one after another."""
    return Portraits(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Portraits)))


def _shard(run: Path, shard: int) -> Path:
    return run / f"shard-{shard:05d}.npz"


def _write(path: Path, portraits: Portraits) -> None:
    part = path.with_suffix(".part.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {f.name: getattr(portraits, f.name) for f in fields(Portraits)}
    np.savez(part, **(halves | {"features": portraits.features.astype(np.float16)}))
    part.replace(path)


def _read(path: Path) -> Portraits:
    with np.load(path) as data:
        return Portraits(
            *(
                x if x.dtype == np.uint8 else x.astype(np.float32)
                for x in (data[f.name] for f in fields(Portraits))
            )
        )


def label(portraits: Portraits, photos: Photographs) -> Float:
    """Return what the network is to say of portraits, float32 (n, 9); those read by eye come first."""
    seen = len(PORTRAITS)
    x = unit(portraits.features)
    by_eye = np.eye(len(ANCESTRIES), dtype=np.float32)[[ancestry_of(mark) for mark in PORTRAITS]]
    known = np.concatenate([photos.ancestry, by_eye])
    weights = balanced(known.argmax(1))
    probe = ridge(np.concatenate([unit(photos.features), x[:seen]]), known, PROBE_RIDGE, weights)
    shares = np.clip(predict(x, probe), 0, 1) ** 2
    shares /= np.maximum(shares.sum(1, keepdims=True), 1e-6)
    shares[:seen] = (shares[:seen] + by_eye) / 2
    female = portraits.female.copy()
    female[:seen] = [sex_of(mark, read) for mark, read in zip(PORTRAITS, female, strict=False)]
    # FaceRes makes the old too young; the probe, fitted on few, errs the other way.
    probed = predict(x, ridge(unit(photos.features), photos.age[:, None], PROBE_RIDGE))[:, 0]
    age = np.asarray((portraits.age + probed) / 2, np.float32)
    child = age < ADULT_YEARS
    traits = [_spread(x, which) for which in (BEARDED, WITH_GLASSES)]
    traits[0] = traits[0] * (female < 0.5) * ~child
    columns = [female, np.clip(age, 0, 100) / 100, child, *shares.T, *traits]
    return np.stack(columns, axis=1).astype(np.float32)


def unit(features: Float) -> Float:
    """Give features (n, 1024) one length, which the strengths of the probes are for."""
    return np.asarray(3.0 * features / np.linalg.norm(features, axis=1, keepdims=True), np.float32)


def _spread(x: Float, having: tuple[int, ...]) -> Float:
    """Spread a trait read by eye to all portraits: scores (n,), 0..1."""
    marks = np.zeros(len(PORTRAITS), np.float32)
    marks[list(having)] = 1
    scores = np.clip(
        predict(x, ridge(x[: len(marks)], marks[:, None], TRAIT_RIDGE, balanced(marks)))[:, 0], 0, 1
    )
    scores[: len(marks)] = marks
    return scores


def view(picture: UInt8, random: np.random.Generator) -> Float:
    """Make a training example of a picture: moved, mirrored, spoilt; float32 (3, 128, 128), [-1, 1]."""
    matrix = moved(random, SCALE, TILT, SHIFT)
    crop = cv2.warpAffine(picture, matrix, (CROP_PX, CROP_PX), borderMode=cv2.BORDER_REFLECT_101)
    return as_input(degrade(np.asarray(crop, np.uint8), random))


class Judge(nn.Module):
    """The network with a last layer that says what the labels say; that layer does not ship."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.logits = LookNet(), nn.Linear(FEATURE_SIZE, SCORES)

    def forward(self, crop: Tensor) -> Tensor:
        """Map float32 RGB crops (n, 3, 128, 128) in [-1, 1] to logits (n, 9)."""
        return cast(Tensor, self.logits(self.net(crop)))


class Trainer:
    """The network, its moving average (which is what ships), and the state of the training."""

    def __init__(self, portraits: Portraits, labels: Float, steps: int, seed: int, checkpoint: Path) -> None:
        torch.manual_seed(seed)
        self.module, self.teacher = Judge(), nn.Linear(FEATURE_SIZE, FEATURES)
        self.average = copy.deepcopy(self.module)
        parameters = [*self.module.parameters(), *self.teacher.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, RATE, weight_decay=0.02)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, RATE, steps, pct_start=0.1)
        self._portraits, self._seed, self.steps, self.step = portraits, seed, steps, 0
        self._labels, self._checkpoint = torch.from_numpy(labels), checkpoint
        centred = portraits.features - portraits.features.mean(0)
        self._features = torch.from_numpy(centred / np.linalg.norm(centred, axis=1, keepdims=True))
        weights = rarity(labels).astype(np.float64)
        self._chances = weights / weights.sum()
        if checkpoint.is_file():
            self._load()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield crops (64, 3, 128, 128) and the rows that they show, up to the last step."""
        with ThreadPoolExecutor(WORKERS) as pool:
            yield from ordered_map(pool, self._batch, range(self.step, self.steps), ahead=2)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        random = np.random.default_rng([self._seed, step])
        rows = random.choice(len(self._chances), BATCH, p=self._chances)
        crops = np.stack([view(self._portraits.pictures[row], random) for row in rows])
        return torch.from_numpy(crops), torch.from_numpy(rows)

    def train_step(self, crops: Tensor, rows: Tensor) -> float:
        """Learn from one batch; return the loss."""
        self.module.train()
        with quick_precision("cpu"):
            features = self.module.net(crops.contiguous(memory_format=torch.channels_last))
            taught = self.teacher(features).float()
        loss = looks_loss(self.module.logits(features.float()), self._labels[rows])
        loss = loss + (1 - functional.cosine_similarity(taught, self._features[rows]).mean())
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.schedule.step()
        self.step += 1
        follow(self.average, self.module, self.step, KEEP)
        return float(loss.detach())

    def save(self, out: Path) -> None:
        """Write the state whole or not at all, and the averaged weights as float16."""
        part = self._checkpoint.with_suffix(".part")
        states = {
            x: getattr(self, x).state_dict()
            for x in ("module", "teacher", "average", "optimiser", "schedule")
        }
        torch.save(states | {"step": self.step}, part)
        part.replace(self._checkpoint)
        state = self.average.net.state_dict()
        # Statistics of the batch norms keep their precision: variances can be tiny.
        halves = {k: x if "running" in k or "num_" in k else x.half() for k, x in state.items()}
        save_file({k: x.contiguous() for k, x in halves.items()}, out)

    def _load(self) -> None:
        states = torch.load(self._checkpoint, weights_only=True)
        self.step = states.pop("step")
        for name, state in states.items():
            getattr(self, name).load_state_dict(state)


def rarity(labels: Float) -> Float:
    """Return weights (n,) that let thin decades and ancestries count more."""
    decade = np.minimum(labels[:, 1] * 10, 6).astype(int)
    return np.asarray(np.sqrt(balanced(decade) * balanced(labels[:, ANCESTRY].argmax(1))), np.float32)


def looks_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compare what the network says, logits (n, 9), with labels (n, 9)."""
    entropy = functional.binary_cross_entropy_with_logits
    age = functional.smooth_l1_loss(torch.sigmoid(logits[:, 1]) * AGE_SCALE, labels[:, 1] * AGE_SCALE)
    ancestry = -(labels[:, ANCESTRY] * functional.log_softmax(logits[:, ANCESTRY], 1)).sum(1).mean()
    traits = entropy(logits[:, 7:], labels[:, 7:])
    sex, child = (entropy(logits[:, i], labels[:, i]) for i in (0, 2))
    return sex + age + 0.5 * child + 0.5 * ancestry + traits


def judged(judge: Judge, pictures: UInt8) -> Float:
    """Return what the network says of pictures, scores (n, 9); those of the ancestries are logits."""
    judge.eval()
    with torch.inference_mode():
        crops = torch.from_numpy(np.stack([as_input(picture) for picture in pictures]))
        logits = torch.cat([judge(part) for part in torch.split(crops, BATCH)])
    return np.where(
        np.isin(np.arange(SCORES), range(*ANCESTRY.indices(SCORES))), logits, torch.sigmoid(logits)
    )


def score(said: Float, photos: Photographs) -> str:
    """Say how well scores (n, 9) fit labelled photographs."""
    adult = photos.age >= ADULT_YEARS
    sex = (said[:, 0] > 0.5) == (photos.female > 0.5)
    off = np.abs(100 * said[:, 1] - photos.age)
    ancestry = said[:, ANCESTRY].argmax(1) == photos.ancestry.argmax(1)
    return (
        f"sex of adults {sex[adult].mean():.3f}, age {off.mean():.1f} years, "
        f"of adults {off[adult].mean():.1f}, "
        f"child {((said[:, 2] > 0.5) != adult).mean():.3f}, ancestry {ancestry.mean():.3f}"
    )


@click.command()
@click.option("--samples", type=click.Path(path_type=Path, exists=True), required=True,
              help="Folder data/drawn of 'vidanon train'.")  # fmt: skip
@click.option("--faceres", type=click.Path(path_type=Path, exists=True), required=True,
              help="faceres.json, faceres.bin beside it.")  # fmt: skip
@click.option("--labelled-faces", type=click.Path(path_type=Path, exists=True), required=True,
              help="Folder of UTKFace's pictures.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Weights to write.")
@click.option("--steps", type=click.IntRange(1), default=6000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--run", type=click.Path(path_type=Path), default=Path("runs/looks"), show_default=True)
def main(
    samples: Path, faceres: Path, labelled_faces: Path, out: Path, steps: int, seed: int, run: Path
) -> None:
    """Draw and label portraits, train the network on them, write its weights, and measure it."""
    models, teacher = ModelStore(), FaceRes(faceres)
    portraits = join([read_samples(samples, faceres, run), *draw(models, faceres, run)])
    labels = label(portraits, read_photographs(models, teacher, labelled_faces, 0))
    others = read_photographs(models, teacher, labelled_faces, 1)
    trainer = Trainer(portraits, labels, steps, seed, run / "checkpoint.pt")
    saved = time.monotonic()
    with tqdm(total=steps, initial=trainer.step, mininterval=5) as bar:
        for crops, rows in trainer.batches():
            bar.set_postfix(loss=f"{trainer.train_step(crops, rows):.3f}", refresh=False)
            bar.update()
            if time.monotonic() - saved > SAVE_EVERY_S:
                saved = time.monotonic()
                trainer.save(out)
                tqdm.write(f"step {trainer.step}: {score(judged(trainer.average, others.pictures), others)}")
    trainer.save(out)
    click.echo(f"step {trainer.step}: {score(judged(trainer.average, others.pictures), others)}")


if __name__ == "__main__":
    main()
