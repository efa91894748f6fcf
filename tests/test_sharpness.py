"""The new face is as sharp as the video."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vidanon.stages.sharpness import match_detail
from vidanon.types import Float, UInt8

SIZE = 160
EVERYWHERE: Float = np.ones((SIZE, SIZE), np.float32)


def texture(seed: int, sigma_px: float) -> UInt8:
    """Noise of full contrast behind a blur."""
    noise = np.random.default_rng(seed).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma_px), np.uint8)


def detail(picture: UInt8) -> float:
    grey = cv2.cvtColor(picture[..., :3], cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float((grey - cv2.GaussianBlur(grey, (0, 0), 1.5)).std())


def new_face(sigma_px: float) -> UInt8:
    return np.dstack([texture(1, sigma_px), np.full((SIZE, SIZE), 255, np.uint8)])


@pytest.mark.parametrize("blur_px", [0.9, 1.1, 1.5, 2.0])
def test_a_sharp_face_becomes_as_soft_as_the_video(blur_px: float) -> None:
    source = texture(2, blur_px)
    result = match_detail(new_face(0.7), source, 1.0, EVERYWHERE, EVERYWHERE)
    assert detail(result) == pytest.approx(detail(source), rel=0.25)
    assert (result[..., 3] == 255).all(), "where the face is does not change"


def test_a_soft_face_becomes_as_sharp_as_the_video() -> None:
    source = texture(2, 1.3)
    result = match_detail(new_face(1.6), source, 1.0, EVERYWHERE, EVERYWHERE)
    assert detail(result) == pytest.approx(detail(source), rel=0.25)
    assert (result[..., 3] == 255).all(), "where the face is does not change"


def test_a_face_is_not_sharpened_without_end() -> None:
    new = new_face(2.0)
    result = match_detail(new, texture(2, 0.5), 1.0, EVERYWHERE, EVERYWHERE)
    assert detail(new) < detail(result) < 2.5 * detail(new)


@pytest.mark.parametrize("contrast", [0.5, 0.7, 1.4])
def test_a_face_whose_contrast_changes_is_as_sharp_as_the_video_afterwards(contrast: float) -> None:
    source = np.asarray(cv2.convertScaleAbs(texture(2, 1.1), alpha=contrast), np.uint8)
    result = match_detail(new_face(0.7), source, contrast, EVERYWHERE, EVERYWHERE)
    assert contrast * detail(result) == pytest.approx(detail(source), rel=0.25)


def test_only_the_face_is_compared() -> None:
    source = texture(2, 2.0)
    source[:, SIZE // 2 :] = texture(3, 0.5)[:, SIZE // 2 :]  # a sharp background
    weight = EVERYWHERE.copy()
    weight[:, SIZE // 2 :] = 0
    result = match_detail(new_face(0.7), source, 1.0, weight, EVERYWHERE)
    assert detail(result[:, : SIZE // 2]) == pytest.approx(detail(source[:, : SIZE // 2]), rel=0.25)


def test_nothing_to_compare_is_no_error() -> None:
    new = new_face(0.7)
    assert match_detail(new, texture(2, 1.0), 1.0, 0 * EVERYWHERE, EVERYWHERE).shape == new.shape
