"""Warp, blend, gate and the obscuring fallback on drawn pictures (no networks)."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.geometry import apply, compose, fit_similarity, invert, unit_crop_from_frame
from vidanon.networks.segmenter import MAP_PX, Part
from vidanon.stages import blend, gate, obscure, segment, warp
from vidanon.stages.mesh import BROWS, CONTROL, EYES, FACE_OVAL, LIPS, NOSE
from vidanon.types import Bool, Float, UInt8


@pytest.fixture
def landmarks() -> Float:
    """A face-like point set: random inside, the oval on an ellipse, eyes and mouth where they belong."""
    rng = np.random.default_rng(1)
    points = rng.uniform((110, 110), (190, 210), (478, 2)).astype(np.float32)
    angle = np.linspace(-np.pi / 2, 1.5 * np.pi, len(FACE_OVAL), endpoint=False)
    points[list(FACE_OVAL)] = np.stack([150 + 60 * np.cos(angle), 160 + 80 * np.sin(angle)], 1)
    around = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    for ids, x, side in ((EYES[:8], 125, -1), (EYES[8:], 175, 1)):
        points[list(ids)] = np.stack([x + side * 9 * np.cos(around), 140 + 4 * np.sin(around)], 1)
    points[61], points[291] = (132, 195), (168, 195)
    return points


CROP_FROM_FRAME = np.array([[1 / 300, 0, 0], [0, 1 / 300, 0]], np.float32)
"""The crop is the whole of a 300 px frame."""


def head_parts(**areas: tuple[int, int, int, int]) -> Float:
    """Part chances of a head that is all skin but for boxes (x0, y0, x1, y1) in frame pixels, by part.

    A ``hand`` is an occluder that is known by its shape.
    """
    labels, hand = np.full((MAP_PX, MAP_PX), Part.SKIN), np.zeros((1, MAP_PX, MAP_PX), np.float32)
    for name, box in areas.items():
        x0, y0, x1, y1 = (round(v * MAP_PX / 300) for v in box)
        labels[y0:y1, x0:x1] = Part.OCCLUDER if name == "hand" else Part[name.upper()]
        hand[0, y0:y1, x0:x1] = name == "hand"
    return np.concatenate([np.eye(len(Part), dtype=np.float32)[labels].transpose(2, 0, 1), hand])


def put_on(
    image: UInt8, landmarks: Float, parts: Float, new: UInt8 | None = None, beard: float = 0.0
) -> UInt8:
    """Return the image with a plain new face (or ``new``, the size of the image) blended in."""
    result = image.copy()
    region = blend.region_of_interest(landmarks, image.shape)
    assert region is not None
    x0, y0, x1, y1 = region
    if new is None:
        new = np.full((*image.shape[:2], 4), (120, 120, 120, 255), np.uint8)
    blend.blend(result, new[y0:y1, x0:x1], landmarks, region, 0.2, 0.06, parts, CROP_FROM_FRAME, beard)
    return result


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


def noise(seed: int) -> UInt8:
    return np.random.default_rng(seed).integers(90, 160, (300, 300, 3), dtype=np.uint8)


def share_kept(before: UInt8, after: UInt8, box: tuple[int, int, int, int]) -> float:
    """How much of the source's noise is left in a box."""
    x0, y0, x1, y1 = box
    a, b = (x[y0:y1, x0:x1].astype(float).ravel() for x in (before, after))
    return float(np.cov(a, b)[0, 1] / a.var())


def test_blending_replaces_the_face_and_leaves_the_rest_alone(landmarks: Float) -> None:
    image = noise(3)
    x0, y0, x1, y1 = blend.region_of_interest(landmarks, image.shape) or (0, 0, 0, 0)
    result = put_on(image, landmarks, head_parts())
    outside = np.ones(image.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert (result[outside] == image[outside]).all()
    assert abs(share_kept(image, result, (130, 140, 170, 180))) < 0.05


def test_a_grey_video_stays_grey(landmarks: Float) -> None:
    image = np.repeat(np.random.default_rng(4).integers(60, 180, (300, 300, 1), dtype=np.uint8), 3, axis=2)
    new = np.random.default_rng(5).integers(0, 255, (300, 300, 4), dtype=np.uint8)
    new[..., 3] = 255
    result = put_on(image, landmarks, head_parts(), new)
    spread = result.max(axis=2).astype(int) - result.min(axis=2)
    assert spread[140:180, 130:170].max() <= 3


def test_a_new_face_has_darkness_and_hairs_where_the_bearded_source_has_its_beard(landmarks: Float) -> None:
    landmarks[2], landmarks[list(LIPS)] = (150, 180), (150, 195)
    image = np.full((300, 300, 3), 150, np.uint8)
    image[205:] = 40
    parts = head_parts(beard=(0, 205, 300, 300))
    shaven, bearded = (put_on(image, landmarks, parts, beard=x) for x in (0.0, 0.5))
    chin, forehead = np.s_[215:230, 135:165], np.s_[110:170, 120:180]
    assert 40 < bearded[chin].mean() < 0.85 * shaven[chin].mean()
    assert (bearded[forehead] == shaven[forehead]).all()
    image[205:] += np.random.default_rng(1).integers(0, 60, (95, 300, 3), dtype=np.uint8)
    with_hairs = put_on(image, landmarks, parts, beard=0.5)
    assert share_kept(image, with_hairs, (135, 215, 165, 230)) > 0.5
    assert abs(share_kept(image, put_on(image, landmarks, parts), (135, 215, 165, 230))) < 0.05
    no_beard = head_parts()
    np.testing.assert_array_equal(
        put_on(image, landmarks, no_beard, beard=0.5), put_on(image, landmarks, no_beard)
    )


def test_a_face_in_the_dark_does_not_shine(landmarks: Float) -> None:
    image = noise(10) // 16
    new = np.full((300, 300, 4), 60, np.uint8)
    new[:, np.arange(300) // 20 % 2 == 1], new[..., 3] = 200, 255
    result = put_on(image, landmarks, head_parts(), new)
    assert result[140:180, 130:170].max() < 25


def test_hair_of_the_source_stays_in_front_and_a_bare_forehead_is_covered(landmarks: Float) -> None:
    image, forehead = noise(6), (135, 68, 165, 76)
    bare = put_on(image, landmarks, head_parts())
    assert share_kept(image, bare, forehead) < 0.2
    fringe = put_on(image, landmarks, head_parts(hair=(0, 0, 300, 110)))
    assert share_kept(image, fringe, forehead) > 0.95


def test_a_hand_in_front_of_the_face_stays(landmarks: Float) -> None:
    image = noise(7)
    result = put_on(image, landmarks, head_parts(occluder=(150, 170, 300, 230)))
    assert share_kept(image, result, (158, 178, 185, 205)) > 0.95
    assert share_kept(image, result, (115, 130, 140, 160)) < 0.05, "the rest of the face is covered"


def test_what_hardly_reaches_in_from_outside_is_no_hand(landmarks: Float) -> None:
    image, middle = noise(9), (125, 155, 140, 175)
    hand, stain = (put_on(image, landmarks, head_parts(occluder=(left, 150, 165, 180))) for left in (40, 82))
    fist = put_on(image, landmarks, head_parts(hand=(82, 150, 165, 180)))
    assert share_kept(image, hand, middle) > 0.9
    assert abs(share_kept(image, stain, middle)) < 0.1
    assert share_kept(image, fist, middle) > 0.9, "its shape is that of a hand"


def test_a_shaded_brow_beside_a_hand_is_covered(landmarks: Float) -> None:
    image = noise(9)
    x, y = landmarks[list(BROWS[:6])].mean(axis=0).round().astype(int)
    brow = (x - 6, y - 2, x + 6, y + 2)
    shade = head_parts(occluder=(0, y - 10, x + 12, 300))
    beside = head_parts(occluder=(0, y - 10, x + 12, 170), hand=(0, 170, x + 12, 300))
    before = head_parts(hand=(0, y - 10, x + 12, 300))
    kept = [share_kept(image, put_on(image, landmarks, parts), brow) for parts in (shade, beside, before)]
    assert kept[0] > 0.6 and kept[2] > 0.6, "something is before the brow"
    assert kept[1] < 0.2, "it is not the hand"


def test_a_hand_that_gives_somebody_away_is_covered(landmarks: Float) -> None:
    image, hand, fringe = noise(7), (158, 178, 185, 205), (135, 68, 165, 76)
    parts = head_parts(occluder=(150, 170, 300, 230), hair=(0, 0, 300, 110))
    result = put_on(image, landmarks, segment.nothing_in_front(parts))
    assert share_kept(image, result, hand) < 0.05
    assert share_kept(image, result, fringe) > 0.95, "hair stays"


@pytest.mark.parametrize(
    "parts",
    [
        head_parts(hair=(0, 0, 300, 160)),
        head_parts(clothes=(0, 100, 300, 300)),
        head_parts(background=(0, 0, 300, 300)),
        head_parts(occluder=(110, 130, 140, 150)),
        0.6 * head_parts(occluder=(0, 0, 300, 300)) + 0.4 * head_parts(),
        head_parts(occluder=(0, 0, 300, 300)),
    ],
    ids=["hair over the eyes", "a scarf over the eyes", "nothing seen", "an island", "not sure", "a hand"],
)
def test_an_eye_of_the_source_never_reappears(landmarks: Float, parts: Float) -> None:
    image = noise(8)
    result = put_on(image, landmarks, parts)
    for ids in (EYES[:8], EYES[8:]):
        x, y = landmarks[list(ids)].mean(axis=0).round().astype(int)
        assert abs(share_kept(image, result, (x - 6, y - 6, x + 6, y + 6))) < 0.15


@given(st.integers(0, 2**31))
def test_eyes_nose_and_mouth_are_covered_unless_an_occluder_is_sure(seed: int) -> None:
    random = np.random.default_rng(seed)
    chances = random.dirichlet(np.full(len(Part), 0.3), (60, 60)).astype(np.float32)
    parts = np.dstack([chances, chances[..., Part.OCCLUDER] * random.integers(0, 2, (60, 60))])
    rows, columns = np.mgrid[0:60, 0:60]
    core: Bool = (abs(rows - 30) < 9) & (abs(columns - 30) < 12)
    face: Bool = (rows - 30) ** 2 + (columns - 30) ** 2 < 500
    kept = segment.in_front(parts, face, core, rows < 20)
    assert (kept[core & (parts[..., Part.OCCLUDER] < segment.LIKELY)] == 0).all()


def test_generated_hair_does_not_fall_on_a_bare_forehead(landmarks: Float) -> None:
    image = np.full((300, 300, 3), (200, 160, 140), np.uint8)
    new = np.full((300, 300, 4), (190, 150, 130, 255), np.uint8)
    new[:108] = (20, 15, 10, 0)
    result = put_on(image, landmarks, head_parts(), new)
    assert result[82:100, 130:170].min() > 100, "a dark fringe on a bare forehead"


def test_a_forehead_in_place_of_a_fringe_has_the_colour_of_the_face(landmarks: Float) -> None:
    image = np.full((300, 300, 3), 150, np.uint8)
    image[:88] = 30
    new = np.full((300, 300, 4), (120, 120, 120, 255), np.uint8)
    new[:104] = (15, 15, 15, 0)
    result = put_on(image, landmarks, head_parts(hair=(0, 0, 300, 88)), new)
    forehead, cheek = result[90:98, 130:170].mean(), result[170:190, 105:115].mean()
    assert forehead == pytest.approx(cheek, abs=3), "the shade of the generated fringe"


def test_what_takes_the_place_of_new_hair_has_not_the_shade_of_the_lids(landmarks: Float) -> None:
    for ids, x in ((BROWS[:6], 125), (BROWS[6:], 175)):
        landmarks[list(ids)] = [[x + 4 * dx, 124 + dy] for dx in (-3, 0, 3) for dy in (-2, 2)]
    image = np.full((300, 300, 3), (200, 160, 140), np.uint8)
    new = np.full((300, 300, 4), (190, 150, 130, 255), np.uint8)
    new[124:144, 113:187, :3] = 60
    new[:150, :113] = (60, 40, 20, 0)
    result = put_on(image, landmarks, head_parts(), new)
    temple, cheek = (result[rows, 98:106].mean() for rows in (slice(125, 140), slice(165, 185)))
    assert temple == pytest.approx(cheek, abs=6), "a smear beside the eye"


def test_a_strand_of_new_hair_below_an_eye_is_not_drawn_but_the_eye_is(landmarks: Float) -> None:
    landmarks[list(NOSE)] = (150, 170)
    landmarks[list(LIPS)] = [(110 + 80 * x, 195) for x in np.linspace(0, 1, len(LIPS))]
    image = np.full((300, 300, 3), (200, 160, 140), np.uint8)
    new = np.full((300, 300, 4), (190, 150, 130, 255), np.uint8)
    new[137:144, 118:133, :3] = 40
    new[:, :123] = (60, 40, 20, 0)
    result = put_on(image, landmarks, head_parts(), new)
    skin, below, eye = result[155:165, 140:160], result[156:166, 117:121], result[139:142, 119:130]
    assert below.mean() > skin.mean() - 15 and eye.mean() < skin.mean() - 30


def test_hair_over_the_brows_of_a_new_face_speaks_against_it(landmarks: Float) -> None:
    for ids, x in ((BROWS[:6], 125), (BROWS[6:], 175)):
        landmarks[list(ids)] = [[x + 4 * dx, 124 + dy] for dx in (-3, 0, 3) for dy in (-2, 2)]
    bare = np.full((300, 300, 4), (190, 150, 130, 255), np.uint8)
    covered = bare.copy()
    covered[:, :128, 3] = 0
    assert segment.fallen_hair(bare, landmarks, head_parts()) == 0
    assert segment.fallen_hair(covered, landmarks, head_parts()) > 0.5
    assert segment.fallen_hair(covered, landmarks, head_parts(hair=(0, 0, 140, 300))) < 0.05, (
        "as the source's"
    )


def test_hair_at_the_temples_fades_out_below_the_brows(landmarks: Float) -> None:
    image = noise(11)
    result = put_on(image, landmarks, head_parts(hair=(0, 0, 98, 300)))
    brow_y = int(landmarks[list(BROWS), 1].min())
    assert share_kept(image, result, (93, brow_y + 2, 97, brow_y + 8)) > 0.7, "a step at the brows"
    assert share_kept(image, result, (93, 145, 97, 180)) < 0.1, "the frame of the source's face"


def test_a_beard_below_a_smooth_chin_is_covered(landmarks: Float) -> None:
    image, below = noise(9), (140, 243, 160, 250)
    assert share_kept(image, put_on(image, landmarks, head_parts()), below) > 0.5
    bearded = put_on(image, landmarks, head_parts(beard=(80, 190, 220, 260)))
    assert share_kept(image, bearded, below) < 0.2


def test_a_new_face_that_is_wider_than_the_head_does_not_spill_onto_the_wall(landmarks: Float) -> None:
    image, beside = noise(10), (83, 140, 89, 180)  # the oval ends at 90, the mask some pixels further out
    assert share_kept(image, put_on(image, landmarks, head_parts()), beside) < 0.7
    walled = put_on(image, landmarks, head_parts(background=(0, 0, 93, 300)))
    assert share_kept(image, walled, beside) > 0.95
    assert share_kept(image, walled, (100, 140, 200, 180)) < 0.05


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


def test_the_mask_does_not_jump_where_the_picture_hardly_changes() -> None:
    features = np.random.default_rng(3).normal(0, 1, (6, 6, 3))
    detail = cv2.resize(features, (120, 120), interpolation=cv2.INTER_CUBIC)
    masks = []
    for strength in np.arange(5, 60):
        image = (128 + strength * detail).clip(0, 255).astype(np.uint8)
        obscure.obscure(image, np.array([30, 30, 90, 90], np.float32))
        masks.append(image[30:90, 30:90].astype(float))
    spread = [mask.std() for mask in masks]
    assert spread[0] < 3 and spread[-1] > 10, "one colour for a face out of focus, averages for a sharp one"
    jumps = [np.abs(a - b).mean() for a, b in pairwise(masks)]
    assert max(jumps) < 4


@pytest.mark.parametrize(
    ("error", "passes"), [(None, False), (0.05, True), (0.5, False), (float("nan"), False)]
)
def test_only_a_face_that_agrees_with_the_source_passes(error: float | None, passes: bool) -> None:
    assert gate.face_passes(error, limit=0.12) is passes


def test_a_single_bad_frame_obscures_its_neighbours_too() -> None:
    verdicts: list[bool | None] = [True, True, True, True, True, True, False, *12 * (True,)]
    shown = [gate.shown(verdicts, index) for index in range(len(verdicts))]
    assert shown == [index not in range(2, 11) for index in range(len(verdicts))]


def test_a_hand_before_most_of_the_face_does_not_stay_nor_flicker(landmarks: Float) -> None:
    unit = landmarks / np.float32(300)
    core = np.flatnonzero(segment.core_mask(landmarks, (300, 300)).any(axis=1))
    tops = core[0] + 0.9 * len(core), core[0] + 0.05 * len(core)
    low, high = (segment.share_in_front(head_parts(occluder=(0, round(top), 300, 300)), unit) for top in tops)
    assert segment.share_in_front(head_parts(), unit) == 0
    assert 0 < low < gate.MOST_IN_FRONT < high
    hidden = [0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.9, None, *12 * (0.6,)]
    bare = [gate.bare(hidden, index) for index in range(len(hidden))]
    assert bare == [index in range(2, 11) for index in range(len(bare))]
    assert gate.bare([0.9], 0), "what hides all of a face is no hand"
    assert gate.anything_stays(0.1, is_bare=False) and not gate.anything_stays(0.1, is_bare=True)
    assert not gate.anything_stays(None, is_bare=False)


def test_dark_brows_and_lips_of_the_source_leave_no_shade(landmarks: Float) -> None:
    for ids, x in ((BROWS[:6], 125), (BROWS[6:], 175)):
        landmarks[list(ids)] = [[x + 4 * dx, 124 + dy] for dx in (-3, 0, 3) for dy in (-2, 2)]
    around = np.linspace(0, 2 * np.pi, len(LIPS), endpoint=False)
    landmarks[list(LIPS)] = np.stack([150 + 18 * np.cos(around), 195 + 6 * np.sin(around)], 1)
    image = np.full((300, 300, 3), 150, np.uint8)
    drawn = image.copy()
    for ids in (BROWS[:6], BROWS[6:], LIPS):
        hull = cv2.convexHull(landmarks[list(ids)])[:, 0]
        cv2.fillConvexPoly(drawn, np.round(hull).astype(np.int32), (40, 30, 30))
    new = np.full((300, 300, 4), (150, 150, 150, 255), np.uint8)
    with_features, without = (put_on(x, landmarks, head_parts(), new) for x in (drawn, image))
    beside = np.abs(with_features.astype(int) - without)[130:190, 110:190]
    assert beside.max() <= 6, "the skin beside them is as bright as the source's"
