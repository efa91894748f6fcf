"""What is read off a face, on portraits of the bank: how these look is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vidanon.identity.bank import Reading, load_bank
from vidanon.identity.embed import SFace
from vidanon.identity.look import LookEncoder
from vidanon.models.registry import ModelStore
from vidanon.stages.landmark import Landmarker
from vidanon.stages.synthesize import Synthesizer
from vidanon.training.data import FACE_BOX, PICTURE_PX
from vidanon.types import UInt8

EACH = 12


class Eyes:
    """Draws people of the bank and reads pictures."""

    def __init__(self) -> None:
        models = ModelStore()
        self._synthesizer = Synthesizer(models, "cpu", 1)
        self._synthesizer.prepare(PICTURE_PX)
        self._landmark, self._sface = Landmarker(models, 1), SFace(models, 1)
        self._look = LookEncoder(models, "cpu", 1)

    def portrait(self, row: int) -> UInt8:
        return self._synthesizer.picture(load_bank().w[row], PICTURE_PX)

    def read(self, picture: UInt8) -> Reading:
        (mesh,) = self._landmark(picture, [FACE_BOX])
        assert mesh is not None
        return load_bank().read(self._sface(picture, mesh[0]), self._look(picture, mesh[0]))


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    return Eyes()


def some(rows: np.ndarray) -> list[int]:
    """Return some of the rows for which a condition holds and w is known, always the same ones."""
    known = rows[: len(load_bank().w)]
    return np.random.default_rng(0).permutation(np.flatnonzero(known))[:EACH].tolist()


def test_men_women_and_children_are_told_apart(eyes: Eyes) -> None:
    bank = load_bank()
    men, women, children = (
        [eyes.read(eyes.portrait(row)) for row in some(rows)]
        for rows in (~bank.child & (bank.female < 0.1), ~bank.child & (bank.female > 0.9), bank.age < 8)
    )
    assert sum(reading.female < 0.5 for reading in men) >= EACH - 1
    assert sum(reading.female > 0.5 for reading in women) >= EACH - 1
    assert sum(reading.child for reading in children) >= EACH - 2
    assert not any(reading.child for reading in men)


def test_glasses_are_seen(eyes: Eyes) -> None:
    bank = load_bank()
    with_glasses, without = (
        [eyes.read(eyes.portrait(row)).glasses for row in some(rows)]
        for rows in (bank.glasses > 0.9, bank.glasses < 0.1)
    )
    assert np.mean(with_glasses) > np.mean(without) + 0.4


def test_old_people_look_older(eyes: Eyes) -> None:
    bank = load_bank()
    young, old = (
        [eyes.read(eyes.portrait(row)).age for row in some(rows)]
        for rows in ((bank.age > 18) & (bank.age < 28), bank.age > 55)
    )
    assert np.mean(old) > np.mean(young) + 20


def test_light_and_size_of_a_picture_hardly_matter(eyes: Eyes) -> None:
    bank = load_bank()
    for row in some(~bank.child)[:4]:
        picture = eyes.portrait(row)
        small = cv2.resize(picture, (96, 96), interpolation=cv2.INTER_AREA)
        poor = (cv2.resize(small, (PICTURE_PX, PICTURE_PX)) * 0.7).astype(np.uint8)
        plain, other = eyes.read(picture), eyes.read(poor)
        assert abs(plain.female - other.female) < 0.25
        assert abs(plain.age - other.age) < 12
