"""More people for the bank: read as the first of them were, and nobody twice."""

from __future__ import annotations

import numpy as np
import pytest

from vidanon.identity.bank import load_bank
from vidanon.models.registry import ModelStore
from vidanon.training.bank import AGE, MAX_ALIKE
from vidanon.training.config import DataConfig
from vidanon.training.data import LatentSource
from vidanon.training.people import PER_SHARD, SEED, SEX, People, PeopleReader, added, joined, latents_of

EUROPEAN, AFRICAN = 3, 4
"""Columns of the labels."""


def somebody(seed: int, **changes: float) -> People:
    """A woman of 30 with a bare forehead whom nobody of the bank is like, changed as is said."""
    vector = np.random.default_rng(seed).normal(0, 1, 128).astype(np.float32)
    labels = np.zeros(9, np.float32)
    labels[[SEX, AGE, EUROPEAN]] = changes.get("female", 1.0), 0.3, 1.0
    if changes.get("african"):
        labels[[EUROPEAN, AFRICAN]] = 0, 1
    return People(
        embeddings=vector[None] / np.linalg.norm(vector),
        labels=labels[None],
        skin_lab=np.array([[65.0, 12.0, 16.0]], np.float32),
        fringe=np.array([changes.get("fringe", 5.0)], np.float32),
        brows=np.zeros((1, 2), np.float32),
    )


def test_nobody_is_added_who_is_like_another_or_hard_to_read() -> None:
    bank = load_bank()
    twin = somebody(1)
    known = somebody(2)._replace(embeddings=bank.embeddings[7:8])
    doubtful = [somebody(3, female=0.55), somebody(4, fringe=40.0), somebody(5, fringe=40.0, african=1)]
    offered = joined([twin, twin, known, *doubtful])
    taken = added(bank, offered, most=100)
    assert taken.embeddings.tolist() == offered.take([0, 5]).embeddings.tolist()


def test_thin_groups_come_first() -> None:
    offered = joined([somebody(1), somebody(2, african=1), somebody(3)])
    assert added(load_bank(), offered, most=1).labels[0, AFRICAN] == 1


def test_portraits_are_read_as_they_were_labelled() -> None:
    bank = load_bank()
    read = PeopleReader(ModelStore(), bank)
    adults = np.flatnonzero(~bank.child[: len(bank.w)])[:12]
    seen = {row: person for row in adults if (person := read(bank.w[row])) is not None}
    assert len(seen) >= 6
    for row, person in seen.items():
        assert (person.labels[0, SEX] > 0.5) == (bank.female[row] > 0.5)
        assert abs(person.labels[0, AGE] * 100 - bank.age[row]) < 20
        assert float(person.embeddings[0] @ bank.embeddings[row]) > 0.7


def test_portraits_of_a_shard_are_led_to_thin_looks_and_are_the_same_again() -> None:
    bank = load_bank()
    source = LatentSource(ModelStore(), DataConfig().truncation, SEED)
    w = latents_of(source, bank, 3)
    plain = source.draw(3, PER_SHARD)
    assert PER_SHARD // 2 < len(w) <= PER_SHARD
    as_drawn = sum(bool((np.abs(plain - one).max(axis=1) < 1e-6).any()) for one in w)
    assert PER_SHARD // 3 < as_drawn < 2 * PER_SHARD // 3
    assert latents_of(source, bank, 3).tobytes() == w.tobytes()


def test_no_two_people_of_the_bank_are_one() -> None:
    bank = load_bank()
    later = bank.embeddings[len(bank.w) :]
    for start in range(0, len(later), 500):
        some = later[start : start + 500]
        alike = some @ bank.embeddings[: len(bank.w) + start].T
        assert alike.max(initial=-1) < MAX_ALIKE + 0.01  # kept in half precision


def test_people_whose_w_is_not_kept_can_be_chosen() -> None:
    bank = load_bank()
    if len(bank) == len(bank.w):
        pytest.skip("w of everyone is kept")
    code = bank.code(len(bank) - 1)
    assert code.w is None
    assert code.vector.shape == (128,)
    assert bank.index(code.name) == len(bank) - 1
