"""Turned heads: what the camera sees of the new face is drawn once, whatever lies behind the nose."""

import cv2
import numpy as np
import pytest
from test_evaluate import model

from vidanon.settings import RenderSettings
from vidanon.stages import warp
from vidanon.stages.head_pose import canonical_face
from vidanon.stages.mesh import EYE_CORNERS, FACE_OVAL, IRIS_RINGS, IRISES
from vidanon.types import Float

PICTURE_PX, FRAME_PX = 512, 400
HEAD_CM = 24.0
"""What the side of a picture shows."""
STEP_PX = 4
"""Over fewer pixels, rounding of the picture's values hides which way they go."""


def head(points: Float, yaw_deg: float, size_px: int) -> Float:
    """Landmarks (478, 2) of MediaPipe's canonical face, turned, seen from far away."""
    points = np.concatenate([points, np.zeros((10, 3), np.float32)])
    for iris, ring, corners in zip(IRISES, IRIS_RINGS, EYE_CORNERS, strict=True):
        first, last = points[list(corners)]
        points[iris] = (first + last) / 2
        reach = float(np.linalg.norm(last - first)) / 6
        points[list(ring)] = points[iris] + reach * np.array([[1, 0, 0], [0, -1, 0], [-1, 0, 0], [0, 1, 0]])
    yaw = np.radians(yaw_deg)
    across = points[:, 0] * np.cos(yaw) + points[:, 2] * np.sin(yaw)
    return np.asarray(np.stack([across, points[:, 1]], 1) * (size_px / HEAD_CM) + size_px / 2, np.float32)


@pytest.mark.parametrize(("drawn_deg", "source_deg"), [(25, 40), (-25, -40), (30, 45), (35, 50), (40, 55)])
def test_nothing_of_a_turned_face_is_drawn_twice(drawn_deg: float, source_deg: float) -> None:
    """Generated heads turn less than real ones; the far side then lies elsewhere behind the nose."""
    points = canonical_face(model("face-landmarker"))
    generated, source = head(points, drawn_deg, PICTURE_PX), head(points, source_deg, FRAME_PX)
    assert warp.landmark_error(generated, source) < RenderSettings().gate_nme, "it would be obscured"
    target = warp.target_landmarks(generated, source)
    picture = np.zeros((PICTURE_PX, PICTURE_PX, 3), np.uint8)
    picture[:] = np.arange(PICTURE_PX)[:, None] // 2

    drawn = warp.warp_to_frame(picture, generated, target, (0, 0, FRAME_PX, FRAME_PX))[..., 0].astype(int)

    face = np.zeros((FRAME_PX, FRAME_PX), np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(np.round(target[list(FACE_OVAL)]).astype(np.int32)), 1)
    inside = (face[:, STEP_PX:] & face[:, :-STEP_PX]) > 0
    backwards = (drawn[:, STEP_PX:] < drawn[:, :-STEP_PX]) & inside
    assert backwards.sum() == 0
