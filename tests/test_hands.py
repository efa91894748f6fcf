"""Hands before a face: found by their shape, and what of them counts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from sample_cut import cut_sample

from vidanon.errors import ModelsError
from vidanon.geometry import apply, compose, invert, picture_from_unit, unit_crop_from_frame
from vidanon.models.registry import ModelStore
from vidanon.stages.decode import Decoder
from vidanon.stages.hands import HandFinder, hand_mask, with_hands
from vidanon.stages.landmark import Landmarker
from vidanon.stages.segment import HAND, OCCLUDER, PartReader, share_in_front
from vidanon.stages.synthesize import crop_face
from vidanon.types import Float, UInt8

HAND_S, BARE_S = 3.2, 14.6
"""A fist is before the chin of the sample clip, and nothing is before the face."""
BOX = np.array([335, 50, 545, 345], np.float32)
SIZE = 64


def face_at(folder: Path, start_s: float) -> tuple[UInt8, Float, Float]:
    """Return a frame of the sample clip, its unit crop and the landmarks in it; or skip the test."""
    with Decoder(cut_sample(folder / f"{start_s}.mp4", start_s, 1)) as video:
        image = next(iter(video)).image
    try:
        mesh = Landmarker(ModelStore(), 1)(image, [BOX])[0]
    except ModelsError:
        pytest.skip("the models are not here; run 'vidanon models fetch'")
    assert mesh is not None
    crop_from_frame = unit_crop_from_frame(mesh[0])
    return image, crop_from_frame, apply(crop_from_frame, mesh[0])


def read(image: UInt8, crop_from_frame: Float, landmarks: Float) -> tuple[Float, Float]:
    """Return what the segmenter alone reads, and what is read with hands."""
    reader, crop = PartReader(ModelStore(), "cpu", 1), crop_face(image, crop_from_frame)
    return reader.crop(crop), reader.source(image, crop, crop_from_frame, landmarks)


def test_a_fist_before_the_chin_is_in_front(tmp_path: Path) -> None:
    image, crop_from_frame, landmarks = face_at(tmp_path, HAND_S)
    alone, parts = read(image, crop_from_frame, landmarks)
    without = with_hands(alone, landmarks, ())
    assert parts[HAND].max() == 1
    assert share_in_front(parts, landmarks) > share_in_front(without, landmarks) + 0.1
    np.testing.assert_allclose(parts[:HAND].sum(axis=0), 1, atol=1e-3)
    assert (parts[OCCLUDER] >= parts[HAND]).all()


def test_nothing_is_in_front_of_a_bare_face(tmp_path: Path) -> None:
    image, crop_from_frame, landmarks = face_at(tmp_path, BARE_S)
    assert HandFinder(ModelStore(), 1)(image, crop_from_frame) == []
    alone, parts = read(image, crop_from_frame, landmarks)
    assert not parts[HAND].any()
    frame_from_parts = invert(compose(picture_from_unit(SIZE), crop_from_frame))
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1).reshape(-1, 2)
    places, last = apply(frame_from_parts, grid.astype(np.float32)), np.array(image.shape[1::-1]) - 1
    seen = ((places > 0) & (places < last)).all(axis=1).reshape(SIZE, SIZE)
    assert 0 < seen.mean() < 1, "the crop goes on beyond the frame"
    np.testing.assert_allclose(parts[:HAND, seen], alone[:, seen], atol=1e-6)
    np.testing.assert_allclose(parts[1:OCCLUDER], alone[1:OCCLUDER], atol=1e-6)
    np.testing.assert_allclose(parts[:HAND].sum(axis=0), alone.sum(axis=0), atol=1e-6)


def test_nothing_is_in_front_where_the_frame_has_ended(tmp_path: Path) -> None:
    image, crop_from_frame, landmarks = face_at(tmp_path, HAND_S)
    cut = np.ascontiguousarray(image[:, : int(BOX[0] + 0.6 * (BOX[2] - BOX[0]))])
    (x, _), *_ = apply(crop_from_frame, np.array([[cut.shape[1] + 4, 180]], np.float32))
    _, parts = read(cut, crop_from_frame, landmarks)
    column = int(np.ceil(x * SIZE)) + 1
    assert not (parts[OCCLUDER] - parts[HAND])[:, column:].any(), "its last pixels go on, and are no hand"


def test_hands_are_found_in_frames_that_are_turned(tmp_path: Path) -> None:
    image, crop_from_frame, _ = face_at(tmp_path, HAND_S)
    find = HandFinder(ModelStore(), 1)
    turned = np.ascontiguousarray(np.rot90(image))
    frame_from_turned = np.array([[0, -1, image.shape[1] - 1], [1, 0, 0]], np.float32)
    (upright,) = find(image, crop_from_frame)
    (found,) = find(turned, compose(crop_from_frame, frame_from_turned))
    assert np.abs(found - upright).max() < 0.03


def hand_at(x: float, y: float, side: float) -> Float:
    """Return an open hand that points up, its wrist at a point, float32 (21, 2), unit crop."""
    fingers = [[(column, -1 - row / 3) for row in range(4)] for column in (-0.6, -0.3, 0.0, 0.3, 0.6)]
    points = np.array([(0, 0), *(point for finger in fingers for point in finger)], np.float32)
    return (np.array([x, y], np.float32) + side / 2 * points).astype(np.float32)


def parts_of(seen: float) -> Float:
    """Return chances of a picture that is skin, and something in front in so far."""
    parts = np.zeros((7, SIZE, SIZE), np.float32)
    parts[1], parts[OCCLUDER] = 1 - seen, seen
    return parts


OVAL = np.float32(0.5) + np.stack(
    [0.2 * np.cos(np.linspace(0, 2 * np.pi, 478)), 0.28 * np.sin(np.linspace(0, 2 * np.pi, 478))], axis=1
).astype(np.float32)


@pytest.mark.parametrize(
    ("hand", "seen", "counts"),
    [
        (hand_at(0.5, 0.95, 0.25), 0.0, True),
        (hand_at(0.5, 0.62, 0.12), 0.0, False),
        (hand_at(0.5, 0.62, 0.12), 0.5, True),
    ],
    ids=["comes in from below", "a cheek taken for a hand", "a fist that is half seen"],
)
def test_a_hand_counts_that_comes_from_outside_or_is_half_seen(
    hand: Float, seen: float, counts: bool
) -> None:
    parts = with_hands(parts_of(seen), OVAL, [hand])
    assert bool(parts[HAND].any()) == counts
    np.testing.assert_allclose(parts[:HAND].sum(axis=0), 1, atol=1e-5)


def test_a_mask_covers_palm_and_fingers_and_nothing_else() -> None:
    points = hand_at(0.5, 0.8, 0.3) * SIZE
    mask = hand_mask(points, SIZE)
    for x, y in points:
        assert mask[round(float(y)), round(float(x))] > 0.3
    around = cv2.dilate((mask > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    assert 0.03 < mask.mean() < 0.2
    assert not around[:16].any() and not around[:, :8].any()


def test_no_hand_is_found_where_the_face_is_not(tmp_path: Path) -> None:
    image, crop_from_frame, _ = face_at(tmp_path, HAND_S)
    aside = crop_from_frame.copy()
    aside[:, 2] += 4
    assert HandFinder(ModelStore(), 1)(image, aside) == []
