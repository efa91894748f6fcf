"""What is seen of a mouth, and that a new face shows as much of its teeth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.errors import ModelsError
from vidanon.identity.bank import load_bank
from vidanon.identity.shade import mouth_shade
from vidanon.identity.teeth import Teeth, teeth_direction, teeth_of, with_teeth
from vidanon.models.registry import ModelStore
from vidanon.stages.mesh import INNER_LIPS, UPPER_CHEEKS
from vidanon.training.data import FaceReader
from vidanon.types import Float, UInt8

W = np.zeros(512, np.float32)
SKIN, TEETH, TONGUE = (200, 150, 130), (215, 205, 200), (150, 60, 60)


def face(opening_px: float, inside: tuple[int, int, int], scale: float = 1.0) -> tuple[UInt8, Float]:
    """A plain face, 200 px high, with lips that are so far apart."""
    points = np.random.default_rng(0).uniform(80, 220, (478, 2)).astype(np.float32)
    points[10], points[152] = (150, 50), (150, 250)
    points[list(UPPER_CHEEKS)] = [[110, 140], [190, 140], [115, 135], [185, 135]]
    angle = np.linspace(np.pi, 3 * np.pi, len(INNER_LIPS), endpoint=False)
    points[list(INNER_LIPS)] = np.stack([150 + 30 * np.cos(angle), 200 + opening_px / 2 * np.sin(angle)], 1)
    points[13], points[14] = (150, 200 - opening_px / 2), (150, 200 + opening_px / 2)
    image = np.full((300, 300, 3), SKIN, np.uint8)
    cv2.fillPoly(image, [np.round(points[list(INNER_LIPS)]).astype(np.int32)], inside)
    size = (round(300 * scale),) * 2
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), points * np.float32(scale)


def test_teeth_are_told_from_tongue_in_any_light() -> None:
    for light in (1.0, 0.5, 0.25):
        shades = []
        for inside in (TEETH, TONGUE):
            image, landmarks = face(16, inside)
            shades.append(mouth_shade((image * light).astype(np.uint8), landmarks))
        assert shades[0] > 1.2 and shades[1] < 0.7


@given(st.floats(0, 40), st.floats(0.05, 1))
def test_a_mouth_counts_the_more_the_wider_it_is_open(opening_px: float, scale: float) -> None:
    image, landmarks = face(opening_px, TONGUE, scale)
    teeth = teeth_of(image, landmarks)
    assert 0 <= teeth.share <= 1 and np.isfinite(teeth.shade)
    if opening_px < 3 or opening_px * scale < 1:
        assert teeth.share == 0
    wider = teeth_of(*face(opening_px + 3, TONGUE, scale))
    assert wider.share >= teeth.share - 1e-6


def test_a_mouth_at_or_past_the_border_is_no_failure() -> None:
    image, landmarks = face(16, TEETH)
    for move in ((0, 100), (0, 400), (-180, 0), (500, 500), (-900, -900)):
        teeth = teeth_of(image, landmarks + np.float32(move))
        assert np.isfinite(teeth.shade) and 0 <= teeth.share <= 1


def never(w: Float) -> UInt8:
    raise AssertionError("nothing has to be drawn")


def test_a_mouth_in_which_nothing_is_lacking_is_left_alone() -> None:
    image, landmarks = face(16, TEETH)
    for wanted in (Teeth(), Teeth(1.2, 0.0), teeth_of(image, landmarks)):
        assert with_teeth(image, W, landmarks, wanted, never) is image
    shut, landmarks = face(1, TONGUE)
    assert with_teeth(shut, W, landmarks, Teeth(1.2, 1.0), never) is shut


def test_only_what_is_between_the_lips_is_taken_from_the_second_picture() -> None:
    image, landmarks = face(20, TONGUE)
    drawn = []

    def draw(w: Float, lips: Float) -> UInt8:
        drawn.append(w)
        return np.full(image.shape, TEETH, np.uint8)

    result = with_teeth(image, W, landmarks, Teeth(1.2, 1.0), draw)
    changed = np.abs(result.astype(int) - image).max(axis=2) > 2
    assert not changed[:180].any() and not changed[220:].any() and not changed[:, :110].any()
    assert mouth_shade(result, landmarks) > 1.1
    (w,) = drawn
    assert float((w - W) @ teeth_direction()) > 0, "brighter"


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    try:
        return FaceReader(ModelStore(offline=True), 1)
    except ModelsError as error:
        pytest.skip(f"needs the models: {error}")


def test_faces_of_the_bank_show_teeth_as_they_are_told(reader: FaceReader) -> None:
    shades, others = [], []
    for w in load_bank().w[:60].astype(np.float32):
        picture = reader.picture(w)
        mesh = reader.mesh(picture)
        if mesh is None or teeth_of(picture, mesh[0]).share < 1:
            continue
        wanted = [Teeth(shade, 1.0) for shade in (0.6, 1.1)]
        drawn = [with_teeth(picture, w, mesh[0], teeth, lambda w, _: reader.picture(w)) for teeth in wanted]
        shades.append([mouth_shade(x, mesh[0]) for x in drawn])
        one, other = (reader.embed(x, mesh[0]) for x in drawn)
        others.append(float(one @ other))
    assert len(shades) >= 10
    dark, bright = np.mean(shades, axis=0)
    assert bright - dark > 0.25, "most of the .5 that were asked for"
    assert np.mean(others) > 0.9, "the same person"
