"""Detection: two families that agree or one that is sure, turned pictures, small pictures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidanon.errors import ModelsError
from vidanon.models.registry import ModelStore
from vidanon.settings import Settings
from vidanon.stages.decode import Decoder
from vidanon.stages.detect import Candidates, FaceDetector, agree, fit, keep_best, tilt_of, turn_back
from vidanon.stages.landmark import Landmarker, tilt_of_mesh

SURE = (0.3, 0.7)


def look(*found):
    """Candidates from (x, score) pairs; boxes of 40 px."""
    boxes = np.array([[x, 50, x + 40, 90] for x, _ in found], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in found], np.float32)
    return Candidates(boxes, scores, np.zeros(len(found), np.float32))


def kept(one, other):
    return sorted(agree(look(*one), look(*other), SURE).boxes[:, 0].tolist())


def test_one_sure_family_is_enough_and_two_half_sure_ones_are():
    assert kept([(0, 0.31)], []) == [0]
    assert kept([], [(0, 0.71)]) == [0]
    assert kept([(0, 0.2)], [(4, 0.4)]) == [0, 4]
    assert kept([(0, 0.2)], [(100, 0.4)]) == []
    assert kept([(0, 0.12)], [(0, 0.3)]) == []


candidates = st.lists(
    st.tuples(st.integers(0, 300), st.sampled_from([0.12, 0.2, 0.31, 0.5, 0.71, 0.9])), max_size=6
)


@given(candidates, candidates)
def test_a_box_that_either_family_is_sure_of_is_never_lost(one, other):
    found = kept(one, other)
    sure = [x for x, score in one if score >= SURE[0]] + [x for x, score in other if score >= SURE[1]]
    assert all(found.count(x) >= sure.count(x) for x in sure)


@given(
    st.integers(20, 60),
    st.integers(20, 60),
    st.integers(1, 3),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(2, 8),
    st.integers(2, 8),
)
def test_boxes_of_a_turned_picture_come_back_to_their_pixels(width, height, quarters, x, y, across, down):
    image = np.zeros((height, width), np.uint8)
    image[y : y + down, x : x + across] = 1
    rows, columns = np.nonzero(np.rot90(image, quarters))
    box = np.array([[columns.min(), rows.min(), columns.max(), rows.max()]], np.float32)
    found = Candidates(box, np.ones(1, np.float32), np.zeros(1, np.float32))
    back = turn_back(found, quarters, width, height)
    assert back.boxes.tolist() == [[x, y, x + across - 1, y + down - 1]]
    assert np.cos(back.tilts - quarters * np.pi / 2) == pytest.approx(1, abs=1e-5)


@given(st.floats(-3, 3))
def test_the_tilt_is_that_of_the_line_from_the_eyes_to_the_mouth(angle):
    five = np.array([[-1, -1], [1, -1], [0, 0], [-0.7, 1], [0.7, 1]])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert tilt_of((five @ turn)[None])[0] == pytest.approx(angle, abs=1e-4)


@given(st.integers(1, 900), st.integers(1, 900))
@settings(max_examples=30)
def test_pictures_fit_the_grid_and_grow_at_most_twofold(width, height):
    picture, scale = fit(np.zeros((height, width, 3), np.uint8), 640)
    assert picture.shape[0] % 32 == picture.shape[1] % 32 == 0
    assert scale <= 2
    assert picture.shape[1] >= width * scale - 1
    assert max(picture.shape) <= 640


def test_suppression_keeps_the_best_of_overlapping_boxes():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60]], np.float32)
    assert keep_best(boxes, np.array([0.5, 0.9, 0.4], np.float32)).tolist() == [1, 2]


@pytest.fixture(scope="module")
def real_eyes():
    """The first frame of the sample clip, and what finds and reads its face."""
    models = ModelStore(offline=True)
    try:
        clip = models.path("sample-clip")
        detect, landmark = FaceDetector(models, Settings().detect, 1), Landmarker(models, 1)
    except ModelsError as error:
        pytest.skip(f"needs models and the sample clip: {error}")
    with Decoder(clip) as video:
        image = next(iter(video)).image
    return image, detect, landmark


@pytest.mark.parametrize("shift", [(-0.1, 0), (0.1, 0.05), (0, -0.1), (0.05, 0.1)])
@pytest.mark.parametrize("scale", [0.85, 1.0, 1.15])
def test_a_face_is_read_alike_wherever_its_box_lies(real_eyes, shift, scale):
    image, detect, landmark = real_eyes
    box = detect(image)[0].box
    (landmarks, blendshapes), *_ = landmark(image, [box])
    size, centre = box[2:] - box[:2], (box[:2] + box[2:]) / 2 + shift * (box[2:] - box[:2])
    moved = np.concatenate([centre - scale * size / 2, centre + scale * size / 2]).astype(np.float32)
    (other, expression), *_ = landmark(image, [moved])
    assert np.abs(expression - blendshapes).mean() < 0.012
    assert np.linalg.norm(other - landmarks, axis=1).mean() < 0.004 * size[0]
    near, expression = landmark.around(image, other)
    assert np.abs(expression - blendshapes).mean() < 0.012
    assert np.linalg.norm(near - landmarks, axis=1).mean() < 0.004 * size[0]


def test_no_face_is_seen_around_a_mesh_where_none_is(real_eyes):
    image, detect, landmark = real_eyes
    box = detect(image)[0].box
    (found, *_) = landmark(image, [box])
    blank = np.full_like(image, 128)
    assert landmark.around(blank, found[0]) is None


def test_a_face_upside_down_or_on_its_side_is_found_with_its_mesh(real_eyes):
    image, detect, landmark = real_eyes
    for quarters in range(4):
        turned = np.ascontiguousarray(np.rot90(image, quarters))
        best = detect(turned, turned=True)[0]
        (mesh,) = landmark(turned, [best.box], [best.tilt])
        assert mesh is not None
        assert np.cos(tilt_of_mesh(mesh[0]) + quarters * np.pi / 2) > 0.9
        # The audit looks at a face again whose box is all it knows.
        assert np.cos(next(detect.tilts(turned, best.box)) + quarters * np.pi / 2) > 0.9
