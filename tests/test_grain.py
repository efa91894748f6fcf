"""Skin that was filled in has the grain of the skin around it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vidanon.stages.grain import add_grain
from vidanon.types import Float, UInt8

SIZE = 200
EVERYWHERE: Float = np.ones((SIZE, SIZE), np.float32)


def crop_at(x: float, y: float) -> Float:
    """Return pixels to the unit crop of a head of 180 px whose crop begins at a point."""
    return np.array([[1 / 180, 0, -x / 180], [0, 1 / 180, -y / 180]], np.float32)


def skin(spread: float) -> UInt8:
    noise = 128 + spread * np.random.default_rng(3).standard_normal((SIZE, SIZE, 1))
    grey = np.clip(noise, 0, 255).astype(np.uint8)
    return np.concatenate([grey, grey, grey, np.full_like(grey, 255)], axis=2)


def skin_grain(picture: UInt8, crop_from_view: Float) -> Float:
    """Return what is added where all skin is filled in."""
    result = np.zeros((SIZE, SIZE, 3), np.float32)
    add_grain(result, ((picture, 1.0),), EVERYWHERE, EVERYWHERE, crop_from_view)
    return np.asarray(result[..., 0])


def fine(grey: Float) -> float:
    return float((grey - cv2.GaussianBlur(grey, (0, 0), 1.5)).std())


@pytest.mark.parametrize("spread", [2.0, 6.0, 12.0])
def test_grain_is_as_strong_as_that_of_the_skin(spread: float) -> None:
    picture = skin(spread)
    inside = skin_grain(picture, crop_at(10, 10))[20:180, 20:180]
    assert fine(inside) == pytest.approx(fine(picture[..., 0].astype(np.float32)), rel=0.5)
    assert abs(float(inside.mean())) < 0.1 * spread


def test_smooth_skin_gets_none() -> None:
    assert not skin_grain(skin(0), crop_at(10, 10)).any()


def test_a_smooth_video_stays_smooth() -> None:
    result = np.zeros((SIZE, SIZE, 3), np.float32)
    views = (skin(9), 1.0), (skin(2)[..., :3], 1.0)
    add_grain(result, views, EVERYWHERE, EVERYWHERE, crop_at(10, 10))
    assert fine(result[20:180, 20:180, 0]) < 3


def test_the_edges_of_a_small_face_are_no_grain() -> None:
    """Eyes, brows and mouth are 4 in 10 of its pixels."""
    picture = skin(3)
    picture[: 2 * SIZE // 5, :, :3] = np.where(np.arange(SIZE) // 3 % 2, 60, 180)[:, None]
    inside = skin_grain(picture, crop_at(10, 10))[20:180, 20:180]
    assert fine(inside) == pytest.approx(3, rel=0.5)


def test_a_face_that_is_drawn_with_less_contrast_has_less_grain() -> None:
    levels = []
    for gain in (1.0, 0.5):
        result = np.zeros((SIZE, SIZE, 3), np.float32)
        add_grain(result, ((skin(6), gain), (skin(9), 1.0)), EVERYWHERE, EVERYWHERE, crop_at(10, 10))
        levels.append(fine(result[20:180, 20:180, 0]))
    assert levels[1] == pytest.approx(levels[0] / 2, rel=0.01)


def test_skin_of_the_new_face_itself_stays_as_it_is() -> None:
    left = EVERYWHERE.copy()
    left[:, SIZE // 2 :] = 0
    result = np.zeros((SIZE, SIZE, 3), np.float32)
    add_grain(result, ((skin(6), 1.0),), EVERYWHERE, left, crop_at(10, 10))
    assert result[:, : SIZE // 2].std() > 1
    assert not result[:, SIZE // 2 :].any()


def test_grain_moves_with_the_head_and_is_the_same_in_every_run() -> None:
    picture = skin(6)
    here, there, again = (skin_grain(picture, crop_at(x, 8)) for x in (4, 12, 4))
    assert (here == again).all()
    np.testing.assert_allclose(here[20:160, 20:160], there[20:160, 28:168], atol=0.05)
