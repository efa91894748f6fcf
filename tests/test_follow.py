"""Faces are followed between two thorough looks, and looked for again as soon as anything differs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidanon.stages.follow import Looker, Scanner, in_groups, with_next
from vidanon.stages.landmark import mesh_box
from vidanon.types import Face, Frame

IMAGE = np.zeros((60, 200, 3), np.uint8)


class Scene:
    """Faces by frame: ``{x: frames}``; ``meshless`` frames have no mesh anywhere."""

    def __init__(self, faces, meshless=()):
        self.faces, self.meshless = faces, meshless
        self.thorough, self.quick = [], []

    def frames(self, count):
        for index in range(count):
            image = IMAGE.copy()
            image[0, 0, 0] = index
            yield Frame(index, index, image)

    def boxes(self, image):
        return [
            np.array([x, 5, x + 30, 45], np.float32) for x, at in self.faces.items() if image[0, 0, 0] in at
        ]

    def detect(self, image, turned=False, quick=False):
        (self.quick if quick else self.thorough).append(int(image[0, 0, 0]))
        return [Face(box, 0.9) for box in self.boxes(image)]

    def __call__(self, image, boxes, tilts=None):
        here = [] if image[0, 0, 0] in self.meshless else [box[0] for box in self.boxes(image)]
        found = [any(abs(box[0] - x) < 5 for x in here) for box in boxes]
        return [self.mesh(box) if hit else None for box, hit in zip(boxes, found, strict=True)]

    def around(self, image, landmarks):
        return self(image, [mesh_box(landmarks)])[0]

    def mesh(self, box):
        points = np.linspace(box[:2], box[2:], 478).astype(np.float32)
        return points, np.zeros(52, np.float32)

    def scanned(self, count, every, first=0, closely=()):
        scanner = Scanner(self.detect, lambda frame: frame.image, lambda frame, boxes: frame.index in closely)
        groups = map(scanner.begin, in_groups(self.frames(count), every, first))
        return [seen for pair in with_next(groups) for seen in scanner.complete(pair)]

    def seen(self, count, every):
        looker = Looker(self.detect, self)
        groups = map(looker.begin, in_groups(self.frames(count), every))
        return [seen for pair in with_next(groups) for seen in looker.complete(pair)]


def test_a_known_face_is_followed_without_thorough_looks():
    scene = Scene({20: range(10)})
    seen = scene.seen(10, 3)
    assert scene.thorough == [0, 3, 6, 9]
    assert [len(faces) for _, faces, _ in seen] == [1] * 10
    assert all(face.landmarks is not None and face.score > 0 for _, faces, _ in seen for face in faces)


@pytest.mark.parametrize("frame", [1, 2, 4, 5, 7])
def test_somebody_who_shows_for_one_frame_is_found(frame):
    scene = Scene({20: range(10), 120: [frame]})
    assert [len(faces) for _, faces, _ in scene.seen(10, 3)] == [1 + (i == frame) for i in range(10)]


def test_a_face_whose_mesh_is_lost_is_looked_for_with_every_means():
    scene = Scene({20: range(10)}, meshless={4})
    seen = scene.seen(10, 3)
    assert 4 in scene.thorough
    assert seen[4][1][0].landmarks is None


@given(
    st.dictionaries(st.sampled_from([10, 60, 110, 160]), st.sets(st.integers(0, 11)), max_size=4),
    st.sets(st.integers(0, 11)),
    st.integers(1, 5),
)
@settings(deadline=None, max_examples=50)
def test_no_frame_and_no_face_is_lost(faces, meshless, every):
    scene = Scene(faces, meshless)
    seen = scene.seen(12, every)
    assert [frame.index for frame, _, _ in seen] == list(range(12))
    for frame, found, _ in seen:
        assert {face.box[0] for face in found} == {x for x, at in faces.items() if frame.index in at}


def test_a_scan_looks_closely_where_it_is_asked_to_and_at_other_frames_than_the_analysis():
    scene = Scene({20: range(10)})
    seen = scene.scanned(10, 3, first=2, closely={6})
    assert sorted(scene.thorough) == [0, 2, 5, 6, 8, 9]  # the end has no later look to be compared with
    assert [len(boxes) for _, boxes in seen] == [1] * 10


def test_a_scan_looks_half_way_where_two_looks_differ():
    scene = Scene({20: range(17), 120: range(6, 17)})
    seen = scene.scanned(17, 8)
    assert [len(boxes) for _, boxes in seen] == [1 + (i >= 6) for i in range(17)]
    assert sorted(scene.thorough) == [0, 4, 5, 6, 8, 16]


@given(
    st.dictionaries(st.sampled_from([10, 60, 110, 160]), st.sets(st.integers(0, 11)), max_size=4),
    st.integers(1, 5),
    st.integers(0, 4),
)
@settings(deadline=None, max_examples=50)
def test_a_scan_loses_no_frame_and_no_face(faces, every, first):
    seen = Scene(faces).scanned(12, every, first)
    assert [frame.index for frame, _ in seen] == list(range(12))
    for frame, boxes in seen:
        assert {box[0] for box in boxes} >= {x for x, at in faces.items() if frame.index in at}
