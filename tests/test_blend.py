"""Warp, blend, gate and the obscuring fallback on drawn pictures (no networks)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.geometry import apply, compose, fit_similarity, invert, unit_crop_from_frame
from vidanon.stages import blend, gate, obscure, warp
from vidanon.stages.mesh import CONTROL, FACE_OVAL
from vidanon.types import Float


@pytest.fixture
def landmarks() -> Float:
    """A face-like point set: random inside, the oval on an ellipse, eyes and mouth where they belong."""
    rng = np.random.default_rng(1)
    points = rng.uniform((110, 110), (190, 210), (478, 2)).astype(np.float32)
    angle = np.linspace(-np.pi / 2, 1.5 * np.pi, len(FACE_OVAL), endpoint=False)
    points[list(FACE_OVAL)] = np.stack([150 + 60 * np.cos(angle), 160 + 80 * np.sin(angle)], 1)
    for ids, (x, y) in {(33, 133, 159, 145): (125, 140), (263, 362, 386, 374): (175, 140)}.items():
        points[list(ids)] = (x, y)
    points[61], points[291] = (132, 195), (168, 195)
    return points


def test_the_crop_puts_the_eyes_on_the_ffhq_template(landmarks: Float) -> None:
    transform = unit_crop_from_frame(landmarks)
    left, right = apply(transform, landmarks[[33, 263]])
    assert left[1] == pytest.approx(right[1], abs=1e-3)
    assert (left[0] + right[0]) / 2 == pytest.approx(0.5, abs=1e-3)
    assert 0.4 < left[1] < 0.52


@given(st.floats(-3, 3), st.floats(0.1, 5), st.floats(-500, 500), st.floats(-500, 500))
def test_a_transform_and_its_inverse_cancel(angle: float, scale: float, x: float, y: float) -> None:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    transform = np.array([[cos, -sin, x], [sin, cos, y]], np.float32)
    identity = compose(transform, invert(transform))
    np.testing.assert_allclose(identity, [[1, 0, 0], [0, 1, 0]], atol=2e-3)


def test_the_similarity_fit_recovers_a_similarity(landmarks: Float) -> None:
    wanted = np.array([[0.8, -0.6, 12], [0.6, 0.8, -7]], np.float32)
    np.testing.assert_allclose(fit_similarity(landmarks, apply(wanted, landmarks)), wanted, atol=1e-3)
    assert warp.landmark_error(landmarks, apply(wanted, landmarks)) == pytest.approx(0, abs=1e-4)


def test_warping_onto_the_same_points_changes_nothing(landmarks: Float) -> None:
    ys, xs = np.mgrid[0:300, 0:300]
    picture = np.stack([xs * 0.8, ys * 0.8, (xs + ys) * 0.4], axis=2).astype(np.uint8)
    warped = warp.warp_to_frame(picture, landmarks, landmarks, (60, 50, 240, 260))
    np.testing.assert_allclose(warped.astype(int), picture[50:260, 60:240].astype(int), atol=2)


def test_the_new_shape_meets_the_source_at_the_outline_and_keeps_its_own_inside(landmarks: Float) -> None:
    rng = np.random.default_rng(2)
    other = landmarks + rng.normal(0, 3, landmarks.shape).astype(np.float32)
    target = warp.target_landmarks(other, landmarks)
    outline = list(FACE_OVAL)
    assert np.abs(target - landmarks)[outline].mean() < 1
    inside = [point for point in CONTROL if point not in FACE_OVAL]
    assert np.abs(target - landmarks)[inside].mean() > 0.3


def test_blending_replaces_the_face_and_leaves_the_rest_alone(landmarks: Float) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(90, 160, (300, 300, 3), dtype=np.uint8)
    before = image.copy()
    region = blend.region_of_interest(landmarks, image.shape)
    assert region is not None
    x0, y0, x1, y1 = region
    new = np.full((y1 - y0, x1 - x0, 3), 120, np.uint8)
    blend.blend(image, new, landmarks, region, forehead=0.16, feather=0.06)
    outside = np.ones(image.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert (image[outside] == before[outside]).all()
    inner = image[140:180, 130:170].astype(float)
    assert inner.std() < 0.3 * before[140:180, 130:170].std(), "texture of the original is left"


def test_a_grey_video_stays_grey(landmarks: Float) -> None:
    image = np.repeat(np.random.default_rng(4).integers(60, 180, (300, 300, 1), dtype=np.uint8), 3, axis=2)
    region = blend.region_of_interest(landmarks, image.shape)
    assert region is not None
    x0, y0, x1, y1 = region
    new = np.random.default_rng(5).integers(0, 255, (y1 - y0, x1 - x0, 3), dtype=np.uint8)
    blend.blend(image, new, landmarks, region, forehead=0.16, feather=0.06)
    spread = image.max(axis=2).astype(int) - image.min(axis=2)
    assert spread[140:180, 130:170].max() <= 3


def test_a_face_outside_the_frame_has_no_region(landmarks: Float) -> None:
    assert blend.region_of_interest(landmarks + 1000, (300, 300, 3)) is None


@given(
    st.tuples(st.floats(-50, 120), st.floats(-50, 120), st.floats(2, 90), st.floats(2, 90)),
    st.integers(0, 2**31),
)
def test_obscuring_leaves_no_detail_in_the_box(box: tuple[float, float, float, float], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 2, (100, 100, 3), dtype=np.uint8) * 255
    before = image.copy()
    x, y, width, height = box
    obscure.obscure(image, np.array([x, y, x + width, y + height], np.float32))
    x0, y0 = max(0, round(x)), max(0, round(y))
    x1, y1 = min(100, round(x + width)), min(100, round(y + height))
    if x1 - x0 > 20 and y1 - y0 > 20:
        centre = (slice(y0 + 5, y1 - 5), slice(x0 + 5, x1 - 5))
        assert image[centre].std() < 0.75 * before[centre].std()


@pytest.mark.parametrize(
    ("error", "passes"), [(None, False), (0.05, True), (0.5, False), (float("nan"), False)]
)
def test_only_a_face_that_agrees_with_the_source_passes(error: float | None, passes: bool) -> None:
    assert gate.face_passes(error, limit=0.12) is passes


def test_a_single_bad_frame_obscures_its_neighbours_too() -> None:
    verdicts: list[bool | None] = [True] * 6 + [False] + [True] * 12
    shown = [gate.shown(verdicts, index) for index in range(len(verdicts))]
    assert shown == [index not in range(2, 11) for index in range(len(verdicts))]
