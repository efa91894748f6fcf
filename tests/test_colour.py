"""Colours, contrast and light of a new face, on drawn pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.identity.shade import eye_shade, glare
from vidanon.stages.colour import contrast_between, match_colour
from vidanon.stages.mesh import EYES, SKIN_PATCHES
from vidanon.types import Float

SIZE = 80
ALL = np.ones((SIZE, SIZE), np.float32)
CORE = np.zeros((SIZE, SIZE), np.float32)
CORE[25:60, 20:60] = 1


def face(brows: float, aside: float, seed: int = 1) -> Float:
    """Skin with black lashes and nostrils, brows of some darkness, and light that falls from the left."""
    picture = np.full((SIZE, SIZE, 3), (170, 140, 125), np.float32)
    picture += aside * np.linspace(1, -1, SIZE, dtype=np.float32)[:, None]
    picture += np.random.default_rng(seed).normal(0, 4, (SIZE, SIZE, 3)).astype(np.float32)
    picture[14:22, 15:65] -= brows
    for top, left in ((28, 22), (28, 48), (45, 33), (45, 43)):
        picture[top : top + 4, left : left + 8] = 35
    return picture


def matched(source: Float, generated: Float, contrast: Float) -> Float:
    """The new face with the source's colours, but not its light."""
    nothing = np.zeros_like(ALL)
    matrix, offset = match_colour(source, generated, ALL, ALL, nothing, nothing, SIZE, contrast)
    return np.asarray(generated @ matrix.T + offset, np.float32)


@given(gain=st.floats(0.55, 1), haze=st.floats(0, 60))
def test_the_same_face_in_haze_comes_out_as_the_source(gain: float, haze: float) -> None:
    generated = face(60, 10)
    source = np.float32(gain) * generated + np.float32(haze)
    result = matched(source, generated, contrast_between(source, generated, ALL, CORE))
    assert np.abs(result - source).max() < 2


def test_dark_brows_and_light_from_aside_do_not_turn_a_face_grey() -> None:
    source, generated = face(10, 0), face(90, 35, seed=2)
    contrast = contrast_between(source, generated, ALL, CORE)
    lashes = matched(source, generated, contrast)[29:31, 23:29].mean()
    spread = contrast * 0
    spread[0] = source.std() / generated.std()
    grey = matched(source, generated, spread)[29:31, 23:29].mean()
    assert lashes < grey - 10, "how much the luma varies is no measure of how dark lashes are"
    assert lashes == pytest.approx(source[29:31, 23:29].mean(), abs=30)


@given(light=st.floats(0.75, 1))
def test_a_contrast_once_seen_holds_in_less_light(light: float) -> None:
    source, generated = face(10, 0), face(30, 10, seed=2)
    contrast = contrast_between(source, generated, ALL, CORE)
    bright = matched(source, generated, contrast)
    dim = matched(np.float32(light) * source, generated, contrast)
    np.testing.assert_allclose(dim, np.float32(light) * bright, atol=1)


def test_a_face_of_which_the_middle_is_not_seen_has_a_contrast_too() -> None:
    source, generated = face(10, 0), face(30, 10)
    contrast = contrast_between(source, generated, ALL, np.zeros_like(CORE))
    assert np.isfinite(contrast).all() and 0.3 < contrast[0] < 1.5
    nothing = contrast_between(source, generated, np.zeros_like(ALL), CORE)
    assert np.isfinite(nothing).all()


@given(light=st.floats(0.3, 1.2), haze=st.floats(0.2, 0.6), wide=st.floats(3, 7))
def test_eyes_are_as_dark_in_any_light_however_wide_but_not_in_haze(
    light: float, haze: float, wide: float
) -> None:
    landmarks = np.random.default_rng(3).uniform(20, 180, (478, 2)).astype(np.float32)
    landmarks[:, 1] = np.where(landmarks[:, 1] < 110, landmarks[:, 1] + 90, landmarks[:, 1])
    picture = np.full((200, 200, 3), 180, np.uint8)
    around = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    for ids, x in ((EYES[:8], 60), (EYES[8:], 140)):
        landmarks[list(ids)] = np.stack([x + 14 * np.cos(around), 70 + wide * np.sin(around)], 1)
        picture[62:78, x - 4 : x + 5] = 40
    clear = eye_shade(picture, landmarks)
    assert clear == pytest.approx(40 / 180, abs=0.03)
    assert eye_shade((picture * light).astype(np.uint8), landmarks) == pytest.approx(clear, abs=0.02)
    assert eye_shade((picture * (1 - haze) + 200 * haze).astype(np.uint8), landmarks) > clear + 0.1
    landmarks[list(EYES)] -= 500
    assert eye_shade(picture, landmarks) == 1, "eyes past the border of the frame"


@given(light=st.floats(0.3, 1.2), slope=st.floats(0, 0.3), shine=st.floats(0.2, 0.35))
def test_glare_is_what_stands_out_on_the_skin_in_any_light(light: float, slope: float, shine: float) -> None:
    landmarks = np.random.default_rng(3).uniform(20, 380, (478, 2)).astype(np.float32)
    for ids, (x, y) in zip(SKIN_PATCHES, ((120, 250), (280, 250), (200, 100)), strict=True):
        around = np.linspace(0, 2 * np.pi, len(ids), endpoint=False)
        landmarks[list(ids)] = np.stack([x + 40 * np.cos(around), y + 40 * np.sin(around)], 1)
    columns = np.linspace(1 - slope, 1, 400)[None, :, None]
    plain = np.broadcast_to(180 * light * columns, (400, 400, 3)).astype(np.uint8)
    shining = plain.copy()
    for x, y in ((120, 250), (280, 250), (200, 100)):
        patch = shining[y - 12 : y + 12, x - 12 : x + 12]
        patch[:] = np.minimum(patch * (1 + shine), 255).astype(np.uint8)
    assert glare(plain, landmarks) < 0.05
    assert glare(shining, landmarks) > glare(plain, landmarks) + 0.4 * shine
    assert np.isnan(glare(plain, landmarks / 10)), "too small to tell"
