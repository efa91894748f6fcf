"""Tracks: nothing is dropped, gaps are bridged within a shot, persons are linked with care."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.stages.smooth import fill_meshes, short_gaps, smooth, smooth_landmarks
from vidanon.stages.track import CutFinder, Sighting, Tracker, densify, drop_duplicates, link, waits_at_border
from vidanon.types import Face, Origin


def face(x, y=50.0, side=40.0, score=0.9, landmarks=None):
    box = np.array([x, y, x + side, y + side], np.float32)
    return Face(box, score, landmarks, None if landmarks is None else np.zeros(52, np.float32))


SIZE = (640, 360)


def mesh(x, y=50.0, side=40.0):
    """A mesh whose eyes and mouth are where a face has them, in a box."""
    points = np.random.default_rng(0).uniform(0, 1, (478, 2))
    points[[33, 133, 159, 145]] = [[0.2, 0.35], [0.4, 0.35], [0.3, 0.33], [0.3, 0.37]]
    points[[263, 362, 386, 374]] = [[0.8, 0.35], [0.6, 0.35], [0.7, 0.33], [0.7, 0.37]]
    points[[61, 291]] = [[0.35, 0.75], [0.65, 0.75]]
    return (points * side + [x, y]).astype(np.float32)


def tracks_of(frames, max_gap=5, cuts=()):
    tracker = Tracker(max_gap)
    for index, faces in enumerate(frames):
        tracker.add(index, [Sighting(f) for f in faces], index in cuts)
    return tracker.finish()


@pytest.mark.parametrize(("start", "step"), [(180, 8), (260, 20), (20, -8), (40, -12)])
def test_who_is_lost_at_the_border_is_covered_there(start, step):
    """Half a face is hard to find, and may stay where it was seen last."""
    frames = [[face(start + step * i)] for i in range(4)]
    (track,) = tracks_of(frames + [[]] * 8)
    dense = densify(track, 5, 0, 12, (300, 200))
    assert dense.origin.tolist() == [Origin.DETECTED] * 4 + [Origin.EXTENDED] * 5
    visible = np.minimum(dense.boxes[:, 2], 300) - np.maximum(dense.boxes[:, 0], 0)
    assert (visible[4:] >= min(visible[3], 20) - 1e-3).all()
    assert np.ptp(dense.boxes[:, 2] - dense.boxes[:, 0]) < 1e-3
    inside = dense.boxes[4:][(dense.boxes[4:, 0] > 0) & (dense.boxes[4:, 2] < 300)]
    assert all(float(x) % 1 == 0 for x in inside[:, 0]), "where all of it is in view it goes on as it moved"


def test_between_two_sightings_at_one_border_it_stays_covered():
    """A face that stands half outside is lost and found there, for a second at most."""
    left, back, elsewhere = [face(270 + 5 * i) for i in range(3)], face(275, y=60), face(275, y=140)
    for later, gap, covered in ((back, 10, 10), (back, 40, 0), (elsewhere, 10, 0), (face(150), 10, 0)):
        frames = [[x] for x in left] + [[]] * gap + [[later]] * 3
        tracks = tracks_of(frames, max_gap=3)
        assert len(tracks) == 2
        waits = waits_at_border(tracks, 30, (300, 200))
        assert waits == [covered, 0]
        dense = densify(tracks[0], 2, 0, len(frames), (300, 200), waits[0])
        assert dense.start + len(dense.boxes) == 3 + max(covered, 2)
        assert (dense.boxes[3:, 0] <= 280).all(), "half of it in view"
    alarm = tracks_of([[left[0]]] + [[]] * 10 + [[back]] * 3, max_gap=3)
    assert waits_at_border(alarm, 30, (300, 200)) == [0, 0], "what shows once is no reason to wait"
    cut = tracks_of([[x] for x in left] + [[]] * 10 + [[back]] * 3, max_gap=3)
    assert len(densify(cut[0], 2, 0, 8, (300, 200), 10).boxes) == 8, "never beyond the shot"


def test_a_face_seen_once_is_a_track_with_extended_ends():
    frames = [[]] * 10 + [[face(10, score=0.31)]] + [[]] * 10
    (track,) = tracks_of(frames)
    dense = densify(track, extend=3, first=0, stop=len(frames), size=SIZE)
    assert (dense.start, len(dense.boxes)) == (8, 5)
    assert dense.origin.tolist() == [Origin.EXTENDED] * 2 + [Origin.DETECTED] + [Origin.EXTENDED] * 2


def test_a_short_gap_is_bridged_and_a_long_one_is_not():
    seen = [[face(10 + 2 * i)] for i in range(4)]
    (bridged,) = tracks_of(seen + [[]] * 3 + [[face(24)], [face(26)]])
    dense = densify(bridged, 0, 0, 9, size=SIZE)
    assert dense.origin[4:7].tolist() == [Origin.BRIDGED] * 3
    assert dense.boxes[5, 0] == pytest.approx(20, abs=1)
    assert len(tracks_of(seen + [[]] * 8 + [[face(24)]])) == 2


def test_tracks_stop_at_a_cut():
    first, second = tracks_of([[face(10)]] * 6, cuts={3})
    assert (first.last, second.start) == (2, 3)
    assert densify(first, 5, 0, 3, size=SIZE).start == 0
    assert len(densify(first, 5, 0, 3, size=SIZE).boxes) == 3


def test_two_faces_keep_their_tracks_while_they_move():
    tracks = tracks_of([[face(10 + 3 * i), face(200 - 3 * i, y=120)][:: 1 - 2 * (i % 2)] for i in range(20)])
    assert len(tracks) == 2
    for track in tracks:
        steps = np.diff([s.face.box[0] for s in track.sightings.values()])
        assert np.ptp(steps) == 0


@given(st.lists(st.lists(st.floats(0, 500, width=32), max_size=4), min_size=1, max_size=12))
def test_every_sighting_is_in_exactly_one_track(frames):
    faces = [[face(x) for x in row] for row in frames]
    tracks = tracks_of(faces)
    assert sum(len(t.sightings) for t in tracks) == sum(len(row) for row in faces)
    for track in tracks:
        dense = densify(track, 2, 0, len(frames), size=SIZE)
        assert np.isfinite(dense.boxes).all()
        assert (dense.origin == Origin.DETECTED).sum() == len(track.sightings)


def test_two_boxes_on_one_face_become_one_and_neighbours_stay():
    whole, again = face(10, landmarks=mesh(10)), face(14, score=0.5, landmarks=mesh(12))
    part, neighbour = face(20, y=60, side=15, score=0.4), face(45, score=0.35)
    assert [f.score for f in drop_duplicates([whole, again, part, neighbour])] == [0.9, 0.35]


def test_hair_above_a_known_face_is_no_face_and_somebody_behind_is_one():
    known = face(50, y=60, side=50, landmarks=mesh(50, y=60, side=50))
    hair, behind = face(52, y=38, side=46, score=0.5), face(80, y=15, side=40, score=0.4)
    assert [f.score for f in drop_duplicates([known, hair, behind])] == [0.9, 0.4]


def test_a_doubtful_face_on_the_neck_of_a_known_one_is_no_face_and_a_sure_one_is():
    known = face(50, y=60, side=50, landmarks=mesh(50, y=60, side=50))
    neck, child = face(48, y=83, side=52, score=0.45), face(48, y=83, side=52, score=0.7)
    assert [f.score for f in drop_duplicates([known, neck])] == [0.9]
    assert [f.score for f in drop_duplicates([known, child])] == [0.9, 0.7]


def test_in_a_face_upside_down_a_second_doubtful_one_is_none_and_a_sure_one_is():
    inside = {"y": 55, "side": 20, "landmarks": mesh(55, y=58, side=12)}
    for tilt, score, kept in ((np.pi, 0.5, 1), (np.pi, 0.7, 2), (0.0, 0.5, 2)):
        whole = replace(face(50, side=40, landmarks=mesh(50, side=40)), tilt=tilt)
        assert len(drop_duplicates([whole, face(55, score=score, **inside)])) == kept


def test_a_single_alarm_is_not_drawn_out():
    tracks = tracks_of([[], [], [], [face(10)], [], [], [], []])
    assert len(densify(tracks[0], 5, 0, 8, size=SIZE).boxes) == 5
    assert tracks[0].may_be_recovered()
    tracks[0].add(4, Sighting(face(10, score=0.0)))
    assert not tracks[0].may_be_recovered()


def unit(*values):
    vector = np.zeros(128, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def test_linking_joins_alike_tracks_but_never_two_at_the_same_time():
    alike = [unit(1, 0.1), unit(1, 0), unit(0, 1), None]
    assert link(alike, [(0, 5), (10, 15), (20, 25), (30, 31)]) == [0, 0, 1, 2]
    assert link(alike, [(0, 12), (10, 15), (20, 25), (30, 31)]) == [0, 1, 2, 3]


def test_cuts_are_found_and_motion_and_light_are_not_cuts():
    rng = np.random.default_rng(1)
    first, second = (
        np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in "ab"
    )
    finder = CutFinder()
    pan = [np.roll(first, i, axis=1) for i in range(8)]
    fade = [np.clip(pan[-1].astype(int) + 2 * i, 0, 255).astype(np.uint8) for i in range(8)]
    found = [finder.add(picture) for picture in [*pan, *fade, second, second]]
    assert found == [False] * 16 + [True, False]


def test_every_photograph_of_a_folder_is_a_shot_of_its_own():
    rng = np.random.default_rng(3)
    pictures = [
        np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(30)
    ]
    finder = CutFinder(photographs=True)
    assert [finder.add(picture) for picture in pictures] == [False] + [True] * 29


def test_smoothing_calms_jitter_and_follows_motion_without_lag():
    rng = np.random.default_rng(2)
    size = np.full(60, 200, np.float32)
    still = (100 + rng.normal(0, 0.5, (60, 3))).astype(np.float32)
    assert smooth(still, size, 2.4, 0.006).std() < 0.5 * still.std()
    course = (5.0 * np.arange(60)[:, None] + np.zeros(3)).astype(np.float32)
    assert np.abs(smooth(course, size, 2.4, 0.006) - course)[8:-8].max() < 0.1
    jump = np.where(np.arange(60)[:, None] < 30, 0, 40).astype(np.float32)
    assert np.abs(smooth(jump, size, 2.4, 0.006) - jump).max() < 3


def test_smoothing_keeps_unknown_frames_unknown():
    meshes = np.stack([mesh(10 + i) for i in range(20)])
    meshes[8:15] = np.nan
    landmarks, crops = smooth_landmarks(meshes, 2.0)
    assert np.array_equal(np.isnan(landmarks[:, 0, 0]), np.isnan(meshes[:, 0, 0]))
    assert np.array_equal(np.isnan(crops[:, 0, 0]), np.isnan(meshes[:, 0, 0]))


def meshes_with_gaps(*gaps, turned=1.0):
    """24 meshes that move to the right; from the middle on they are squeezed by ``turned``."""
    boxes = np.stack([[10 + 3 * i, 50, 50 + 3 * i, 90] for i in range(24)]).astype(np.float32)
    meshes = np.stack([mesh(0, 0) for _ in boxes])
    meshes[12:, :, 0] *= turned
    meshes += boxes[:, None, :2]
    whole = meshes.copy()
    for gap in gaps:
        meshes[gap] = np.nan
    return meshes, boxes, whole


def test_short_gaps_are_filled_so_that_meshes_follow_the_boxes():
    meshes, boxes, whole = meshes_with_gaps(slice(0, 2), slice(4, 7), slice(9, 16), slice(17, 24))
    gaps = short_gaps(meshes, boxes, np.ones(24, bool))
    assert gaps == [slice(4, 7), slice(9, 16)]
    boxes[10, [0, 2]] += 5
    fill_meshes(meshes, boxes, gaps)
    whole[10, :, 0] += 5
    assert np.abs(meshes[4:16] - whole[4:16]).max() < 1e-3


def test_a_longer_gap_is_left_where_the_face_turned_or_no_detector_followed():
    meshes, boxes, _ = meshes_with_gaps(slice(4, 7), slice(9, 16), turned=0.7)
    assert short_gaps(meshes, boxes, np.ones(24, bool)) == [slice(4, 7)]
    meshes, boxes, _ = meshes_with_gaps(slice(4, 7), slice(9, 16))
    assert short_gaps(meshes, boxes, np.arange(24) != 10) == [slice(4, 7)]
