r"""Add people to the bank, so that more of them fit anybody, and two keys seldom lead to the same one.

    python -m vidanon.training.people --bank vidanon/models/weights/bank.npz --run runs/people

Portraits are drawn as for training; half of them are led towards looks that are thin in the bank. How they
look is read as the looks of sources are, by the bank's own reader. What is read lies in shards in ``--run``,
so that a stopped run goes on; w, which only the first people of the bank need, is not kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidanon.identity.bank import ADULT_YEARS, BANK_FILE, Bank, load_bank
from vidanon.identity.look import LookEncoder
from vidanon.identity.shade import brow_depths
from vidanon.identity.within import drawn
from vidanon.models.registry import ModelStore
from vidanon.stages.synthesize import as_input
from vidanon.stages.workers import ordered_map
from vidanon.training.bank import AGE, MAX_ALIKE, TRAITS, candidates, measure
from vidanon.training.config import DataConfig
from vidanon.training.data import FaceReader, LatentSource, missing_shards, sample_of, shard_path, write_shard
from vidanon.types import Float

SEED = 604
SHARDS, PER_SHARD = 64, 500
WORKERS = 2
MAX_STRAY = 2.0
"""Mean square of w in standard deviations of drawn ones; 97 of 100 drawn as for training stay below."""
LED = 0.7
"""So much of the way from the bank's mean half of all are led: to a thin ancestry, to old age, or to both."""
THIN = (1, 2, 3)
"""Of :data:`vidanon.identity.bank.ANCESTRIES`."""
YEARS = (50.0, 80.0)
LED_OLD, LED_BEARDED = 0.5, 0.3
"""Shares of them that are led to old age, and to a beard."""
SEX, CHILD, BEARD = 0, 2, 7


class People(NamedTuple):
    """Columns of the bank, see :class:`vidanon.identity.bank.Bank`, one row each."""

    embeddings: Float
    labels: Float
    skin_lab: Float
    fringe: Float
    brows: Float

    def take(self, rows: Any) -> People:
        """Return some of the rows."""
        return People(*(column[rows] for column in self))


class PeopleReader:
    """Draws portraits and reads what the bank says of them.

    Args:
        models: where the networks are.
        bank: whose reader says how somebody looks.
    """

    def __init__(self, models: ModelStore, bank: Bank) -> None:
        self._bank = bank
        self._faces = FaceReader(models, WORKERS)
        self._looks = LookEncoder(models, "cpu", WORKERS)

    def __call__(self, w: Float) -> People | None:
        """Return the one person of w (512,); None where the portrait does not show a face as it should."""
        picture = self._faces.picture(w)
        mesh = self._faces.mesh(picture)
        if mesh is None:
            return None
        embedding = self._faces.embed(picture, mesh[0])
        sample = sample_of(w, picture, embedding, *mesh)
        measured = measure(sample)
        reading = self._bank.read(embedding, self._looks.crop(as_input(sample.pictures[0])))
        if not measured.usable[0] or reading.child != (reading.age < ADULT_YEARS):
            return None
        brows = brow_depths(picture, mesh[0])
        return People(embedding[None], reading.labels[None], measured.skin_lab, measured.fringe, brows[None])


def latents_of(source: LatentSource, bank: Bank, shard: int) -> Float:
    """Draw the w of a shard (n, 512), half of them led to looks that are thin in the bank."""
    w = source.draw(shard, PER_SHARD)
    random = np.random.default_rng([SEED, shard, 1])
    led = np.arange(0, PER_SHARD, 2)
    labels = np.repeat(bank.labels[: len(bank.w)].mean(axis=0)[None], len(led), axis=0)
    mean = labels[0].copy()
    ancestry = random.choice(THIN, len(led))
    labels[:, 3:TRAITS] = np.eye(TRAITS - 3, dtype=np.float32)[ancestry]
    old = random.random(len(led)) < LED_OLD
    labels[old, AGE] = random.uniform(*YEARS, int(old.sum())) / 100
    labels[old, CHILD] = 0
    bearded = random.random(len(led)) < LED_BEARDED
    labels[bearded, SEX], labels[bearded, BEARD] = 0, 1
    w[led] += np.float32(LED) * (labels - mean) @ bank.w_slopes
    mean_w, axes, deviations = drawn()
    stray = (((w - mean_w) @ axes / deviations) ** 2).mean(axis=1)
    return np.asarray(w[stray < MAX_STRAY])


def read_shards(folder: Path, models: ModelStore, bank: Bank, shards: int) -> Iterator[int]:
    """Make what is missing of the shards; yield the number of each that is done."""
    folder.mkdir(parents=True, exist_ok=True)
    source, read = LatentSource(models, DataConfig().truncation, SEED), PeopleReader(models, bank)
    with ThreadPoolExecutor(WORKERS) as pool:
        for shard in missing_shards(folder, shards):
            seen = ordered_map(pool, read, list(latents_of(source, bank, shard)), ahead=2 * WORKERS)
            people = joined([person for person in seen if person is not None])
            write_shard(shard_path(folder, shard), people._asdict())
            yield shard


def joined(parts: Sequence[People]) -> People:
    """Put people one after another."""
    return People(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def added(bank: Bank, people: People, most: int) -> People:
    """Return those who go into the bank: nobody like another, plain to read, of thin groups first."""
    known = np.concatenate([bank.embeddings, np.zeros_like(people.embeddings)])
    taken: list[int] = []
    for row in candidates(people.labels, people.skin_lab, people.fringe):
        count = len(bank) + len(taken)
        if len(taken) < most and (known[:count] @ people.embeddings[row]).max() < MAX_ALIKE:
            known[count] = people.embeddings[row]
            taken.append(int(row))
    return people.take(np.sort(taken))


def columns_of(people: People) -> dict[str, Float]:
    """Return the columns of the bank that say something of everyone."""
    labels = people.labels
    return {
        "embeddings": people.embeddings,
        "female": labels[:, SEX],
        "age": labels[:, AGE] * 100,
        "skin_lab": people.skin_lab,
        "fringe": people.fringe,
        "ancestry": labels[:, 3:TRAITS],
        "beard": labels[:, BEARD],
        "glasses": labels[:, BEARD + 1],
        "brows": people.brows,
    }


def main() -> None:
    """Draw, read, and write the bank anew, its first people as they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bank", type=Path, default=BANK_FILE, help="what is added to")
    parser.add_argument("--run", type=Path, required=True, help="folder for what is read")
    parser.add_argument("--shards", type=int, default=SHARDS, help=f"of {PER_SHARD} portraits each")
    parser.add_argument("--people", type=int, default=20000, help="at most so many are added")
    options = parser.parse_args()
    bank = load_bank(options.bank)
    for shard in read_shards(options.run, ModelStore(), bank, options.shards):
        print(f"shard {shard} of {options.shards}", file=sys.stderr, flush=True)
    parts = []
    for shard in range(options.shards):
        with np.load(shard_path(options.run, shard)) as data:
            parts.append(People(**data))
    more = columns_of(added(bank, joined(parts), options.people))
    with np.load(options.bank, allow_pickle=False) as data:
        columns: dict[str, Any] = dict(data)
    for name, values in more.items():
        columns[name] = np.concatenate([columns[name], values.astype(np.float16)])
    np.savez_compressed(options.bank, **columns)
    print(f"{len(more['female'])} people added, {len(columns['female'])} in all", file=sys.stderr)


if __name__ == "__main__":
    main()
