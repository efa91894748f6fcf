"""The shipped segmenter on pictures that the generator draws here."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from vidanon.models.registry import ModelStore
from vidanon.networks.exit_heads import load_exit_generator
from vidanon.networks.generator import load_mapping
from vidanon.networks.segmenter import CROP_PX, MAP_PX, Part, Segmenter, load_segmenter
from vidanon.stages.segment import FACE, PartReader, with_face_channel
from vidanon.training.occluders import add_occluder
from vidanon.types import Float, UInt8

COUNT = 8


@pytest.fixture(scope="module")
def pictures() -> UInt8:
    """Faces that were not among those the segmenter learned from, uint8 (8, 128, 128, 3)."""
    models = ModelStore()
    mapping = load_mapping(models, workers=1)
    mean = mapping(np.random.default_rng(0).standard_normal((1024, 512)).astype(np.float32))[0].mean(0)
    z = np.random.default_rng(987).standard_normal((COUNT, 512)).astype(np.float32)
    w = torch.from_numpy(mean + np.float32(0.7) * (mapping(z)[0] - mean))
    with torch.inference_mode():
        drawn = load_exit_generator(models, 256)(w).permute(0, 2, 3, 1).numpy()
    large = np.clip(drawn * 127.5 + 127.5, 0, 255).round().astype(np.uint8)
    return np.stack([cv2.resize(x, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA) for x in large])


def read(pictures: UInt8) -> Float:
    """Return the part chances of pictures, float32 (n, 7, 64, 64)."""
    crops = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        return np.asarray(load_segmenter()(crops), np.float32)


def at(chances: Float, x: float, y: float, parts: tuple[Part, ...]) -> Float:
    """Chance of some parts around a point of the unit crop, per picture."""
    row, column = round(y * MAP_PX), round(x * MAP_PX)
    window = chances[:, list(parts), row - 1 : row + 2, column - 1 : column + 2]
    return np.asarray(window.sum(1).mean((1, 2)))


def test_parts_lie_where_a_portrait_has_them(pictures: UInt8) -> None:
    chances = read(pictures)
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-4)
    face = (Part.SKIN, Part.FEATURES, Part.BEARD)
    for x, y in ((0.378, 0.475), (0.62, 0.475), (0.5, 0.637), (0.5, 0.73)):
        assert at(chances, x, y, face).mean() > 0.8, (x, y)
    eyes = at(chances, 0.378, 0.475, (Part.FEATURES,)).mean()
    assert eyes > 0.5
    assert at(chances, 0.5, 0.58, (Part.FEATURES,)).mean() < eyes
    for x in (0.04, 0.96):
        assert at(chances, x, 0.06, face).max() < 0.5
    assert at(chances, 0.5, 0.13, (Part.HAIR, Part.CLOTHES)).mean() > 0.5


def test_things_in_front_are_found_and_a_bare_face_has_none(pictures: UInt8) -> None:
    bare = read(pictures)
    assert bare[:, Part.OCCLUDER, 24:52, 18:46].mean() < 0.05
    labels = np.where(bare.argmax(1) == Part.OCCLUDER, Part.SKIN, bare.argmax(1)).astype(np.uint8)
    random = np.random.default_rng(5)
    both = either = 0
    for _ in range(3):
        for picture, own in zip(pictures, labels, strict=True):
            large = cv2.resize(own, (CROP_PX, CROP_PX), interpolation=cv2.INTER_NEAREST)
            covered, truth = add_occluder(picture, large, pictures[0], large, random)
            found = read(covered[None])[0].argmax(0) == Part.OCCLUDER
            wanted = truth[::2, ::2] == Part.OCCLUDER
            both += int((found & wanted).sum())
            either += int((found | wanted).sum())
    assert both / either > 0.5


@pytest.mark.parametrize("side", [0.378, 0.62])
def test_eyes_in_the_shade_are_no_hands(pictures: UInt8, side: float) -> None:
    rows, columns = np.mgrid[0:CROP_PX, 0:CROP_PX] / np.float32(CROP_PX)
    hollow = np.exp(-(((columns - 0.378) / 0.12) ** 2) - ((rows - 0.46) / 0.07) ** 2)
    hollow += np.exp(-(((columns - 0.62) / 0.12) ** 2) - ((rows - 0.46) / 0.07) ** 2)
    sunlit = 1 / (1 + np.exp((columns + 0.3 * rows - side - 0.2) / 0.01))
    light = (1 - 0.55 * hollow) * (0.7 + 0.5 * sunlit)
    for contrast in (1.0, 0.6, 0.4):
        lit = 110 + contrast * (pictures * light[..., None] - 110)
        poor = np.stack([cv2.GaussianBlur(x, (0, 0), 1.0) for x in np.clip(lit, 0, 255).astype(np.uint8)])
        for x in (0.378, 0.62):
            hidden = at(read(poor), x, 0.475, (Part.OCCLUDER,))
            assert hidden.mean() < 0.1, (contrast, x)


def test_the_pipeline_reads_what_the_network_says(pictures: UInt8) -> None:
    reader = PartReader(ModelStore(), "cpu", 1)
    chances = reader.picture(pictures[0])
    np.testing.assert_allclose(chances, read(pictures[:1])[0], atol=1e-3)
    stacked = with_face_channel(pictures[0], chances)
    assert (stacked[..., :3] == pictures[0]).all()
    assert stacked[64, 64, 3] > 200
    assert stacked[2, 2, 3] < 100
    assert abs(stacked[::2, ::2, 3] / 255 - chances[list(FACE)].sum(0)).mean() < 0.05


def test_the_network_is_small() -> None:
    assert sum(x.numel() for x in Segmenter().parameters()) < 500_000
