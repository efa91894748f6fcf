"""The far edge of turned heads: what a shorter nose leaves shows the wall, and nothing of the source."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from test_evaluate import model
from test_warp import head

from vidanon.networks.segmenter import MAP_PX, Part
from vidanon.stages import blend
from vidanon.stages.head_pose import canonical_face
from vidanon.types import Float, UInt8

FRAME_PX = 400
WALL, SKIN, MEADOW, NEW_SKIN = (150, 150, 160), (220, 170, 150), (40, 160, 60), (200, 160, 140)
SHORTER_PX = 14
"""So much further in, the new profile ends."""


def silhouette(landmarks: Float, grown_px: int = 0) -> UInt8:
    """Return 1 where the head is, with a nose that reaches past its landmarks by some pixels."""
    mask = np.zeros((FRAME_PX, FRAME_PX), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(landmarks).astype(np.int32)), 1)
    kernel = np.ones((2 * grown_px + 1,) * 2, np.uint8)
    return np.asarray(cv2.dilate(mask, kernel), np.uint8)


def painted(mask: UInt8, inside: tuple[int, ...], outside: tuple[int, ...]) -> UInt8:
    return np.where(mask[..., None] > 0, np.uint8(inside), np.uint8(outside))


@pytest.mark.parametrize("yaw_deg", [50, -50, 60, -60])
def test_the_wall_goes_on_where_the_new_profile_is_shorter(yaw_deg: float) -> None:
    landmarks = head(canonical_face(model("face-landmarker")), yaw_deg, FRAME_PX)
    side = int(np.sign(landmarks[1, 0] - landmarks[168, 0]))  # to which the nose points
    here = silhouette(landmarks, 3)
    labels = cv2.resize(here, (MAP_PX, MAP_PX), interpolation=cv2.INTER_AREA)
    chances = np.eye(len(Part) + 1, dtype=np.float32)[np.where(labels > 0, Part.SKIN, Part.BACKGROUND)]
    source = painted(here, SKIN, WALL)
    new = here & np.roll(here, -side * SHORTER_PX, axis=1)
    picture = np.dstack([painted(new, NEW_SKIN, MEADOW), new * np.uint8(255)])
    region = blend.region_of_interest(landmarks, source.shape)
    assert region is not None
    x0, y0, x1, y1 = region
    result = source.copy()
    unit = np.array([[1 / FRAME_PX, 0, 0], [0, 1 / FRAME_PX, 0]], np.float32)
    blend.blend(result, picture[y0:y1, x0:x1], landmarks, region, 0.2, 0.06, chances.transpose(2, 0, 1), unit)

    row = int(landmarks[1, 1])  # at the height of the tip of the nose
    left = np.flatnonzero(here[row] & ~new[row])
    left = left[(left - landmarks[1, 0]) * side > -SHORTER_PX]
    assert len(left) >= SHORTER_PX - 2
    strip = result[row, left].astype(float)
    assert abs(strip - WALL)[2:-4].max() < 25, "neither the meadow of the new picture nor the old nose"
    middle = result[row, int(landmarks[[50, 280][side < 0], 0])]
    assert abs(middle.astype(float) - SKIN).max() < 25, "the face itself is drawn"
