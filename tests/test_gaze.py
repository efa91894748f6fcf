"""The new face looks where the source looks, whatever the generator drew."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.geometry import apply, fit_similarity
from vidanon.stages import warp
from vidanon.stages.mesh import EYE_CORNERS, EYES, FACE_OVAL, IRIS_RINGS, IRISES
from vidanon.types import Float

EYE_PX = 30.0


def face(look_x: float, look_y: float, seed: int = 1) -> Float:
    """Landmarks with irises off the middle of the eyes by parts of the eye's width."""
    points = np.random.default_rng(seed).uniform((110, 110), (190, 210), (478, 2)).astype(np.float32)
    angle = np.linspace(-np.pi / 2, 1.5 * np.pi, len(FACE_OVAL), endpoint=False)
    points[list(FACE_OVAL)] = np.stack([150 + 60 * np.cos(angle), 160 + 80 * np.sin(angle)], 1)
    for n, (middle, iris, ring, corners) in enumerate(
        zip((125, 175), IRISES, IRIS_RINGS, EYE_CORNERS, strict=True)
    ):
        lids = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        points[list(EYES[8 * n : 8 * n + 8])] = np.stack(
            [middle - EYE_PX / 2 * np.cos(lids), 140 - 6 * np.sin(lids)], 1
        )
        left, right = sorted(corners, key=lambda corner: points[corner, 0])
        points[left], points[right] = (middle - EYE_PX / 2, 140), (middle + EYE_PX / 2, 140)
        points[iris] = (middle + look_x * EYE_PX, 140 + look_y * EYE_PX)
        points[list(ring)] = points[iris] + np.array([[5, 0], [0, -5], [-5, 0], [0, 5]])
    return points


def offset(landmarks: Float, eye: int) -> Float:
    """Where the iris is in its eye: a similarity of the face does not change it."""
    corners = list(EYE_CORNERS[eye])
    unit = fit_similarity(landmarks[corners], np.array([[0, 0], [1, 0]], np.float32))
    return apply(unit, landmarks[IRISES[eye]])


@given(st.floats(-0.2, 0.2), st.floats(-0.1, 0.1), st.floats(-0.6, 0.6), st.floats(0.4, 3))
def test_irises_are_where_the_source_has_them(x: float, y: float, turn: float, scale: float) -> None:
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    source = apply(np.array([[cos, -sin, 40], [sin, cos, -9]], np.float32), face(x, y))
    target = warp.target_landmarks(face(0, 0), source)

    for eye in (0, 1):
        np.testing.assert_allclose(offset(target, eye), offset(source, eye), atol=1e-3)
        radius = np.linalg.norm(target[list(IRIS_RINGS[eye])] - target[IRISES[eye]], axis=1)
        np.testing.assert_allclose(radius, 5 * scale, rtol=0.05)


def test_the_drawn_iris_moves_with_them() -> None:
    generated, source = face(0, 0), face(0.15, 0)
    picture = np.full((300, 300, 3), 220, np.uint8)
    ys, xs = np.mgrid[0:300, 0:300]
    picture[(xs - 125) ** 2 + (ys - 140) ** 2 < 16] = 20
    target = warp.target_landmarks(generated, source)
    drawn = warp.warp_to_frame(picture, generated, target, (60, 50, 240, 260))

    dark = np.argwhere(drawn[..., 0] < 120).mean(axis=0)
    assert dark[1] + 60 == pytest.approx(125 + 0.15 * EYE_PX, abs=1.0)
    assert dark[0] + 50 == pytest.approx(140, abs=1.0)
