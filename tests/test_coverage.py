"""Coverage of a whole analysis, with detectors and landmarkers that fail on purpose; no network is used."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.errors import SettingsError
from vidanon.models.registry import ModelStore
from vidanon.plan import analyse
from vidanon.settings import load_settings
from vidanon.stages.landmark import mesh_box
from vidanon.stages.select import Region, Selection, parse_regions
from vidanon.types import Face, IdentityCode, Origin

FACE = (20.0, 20.0, 40.0, 45.0)


def unit(*values):
    vector = np.zeros(128, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


class Roles:
    """Detects FACE in the frames of ``seen``, a false alarm in those of ``alarms``; meshes in ``meshes``."""

    def __init__(self, seen, meshes=(), alarms=(), score=0.8):
        self.seen, self.meshes, self.alarms, self.score = set(seen), set(meshes), set(alarms), score
        self.frame = -1

    def detect(self, image, turned=False, quick=False):
        self.frame += 1
        boxes = [FACE] * (self.frame in self.seen) + [(70.0, 5.0, 82.0, 17.0)] * (self.frame in self.alarms)
        return [Face(np.array(box, np.float32), self.score) for box in boxes]

    def __call__(self, image, boxes, tilts=None):
        return [self.mesh(box) if self.frame in self.meshes and box[0] < 60 else None for box in boxes]

    def around(self, image, landmarks):
        return self(image, [mesh_box(landmarks)])[0]

    def mesh(self, box):
        points = np.random.default_rng(0).uniform(0, 1, (478, 2))
        points[[33, 133, 159, 145]] = [[0.2, 0.35], [0.4, 0.35], [0.3, 0.33], [0.3, 0.37]]
        points[[263, 362, 386, 374]] = [[0.8, 0.35], [0.6, 0.35], [0.7, 0.33], [0.7, 0.37]]
        points[[61, 291]] = [[0.35, 0.75], [0.65, 0.75]]
        return (points * (box[2:] - box[:2]) + box[:2]).astype(np.float32), np.zeros(52, np.float32)


@pytest.fixture
def plan_of(monkeypatch, plain_clip):
    """Analyse the 30 frames of a small clip with roles; frames come in order, one at a time."""

    def run(roles, *assignments):
        monkeypatch.setattr("vidanon.plan.FaceDetector", lambda *_: roles.detect)
        monkeypatch.setattr("vidanon.plan.Landmarker", lambda *_: roles)
        monkeypatch.setattr("vidanon.plan.SFace", lambda *_: lambda image, landmarks: unit(1))
        monkeypatch.setattr("vidanon.plan.ordered_map", lambda pool, work, items, ahead: map(work, items))
        monkeypatch.setattr("vidanon.plan.spares", lambda *_: {})
        settings = load_settings(None, ["runtime.workers=1", "detect.every=1", *assignments])
        codes = lambda profiles: {person: IdentityCode("x", unit(1)) for person in profiles}  # noqa: E731
        return analyse(Path(plain_clip), settings, ModelStore(offline=True), choose_faces=codes)

    return run


def frames_of(track):
    return set(range(track.start, track.end))


def test_a_detector_that_is_blind_for_ten_frames_leaves_no_frame_open(plan_of):
    plan = plan_of(Roles(seen=set(range(30)) - set(range(10, 20))))
    (track,) = plan.tracks
    assert frames_of(track) == set(range(30))
    assert (track.origin[10:20] == Origin.BRIDGED).all()
    assert np.isnan(track.landmarks[10:20]).all()


def test_a_face_that_only_the_landmarker_follows_is_bridged_with_its_mesh(plan_of):
    plan = plan_of(Roles(seen=set(range(30)) - set(range(10, 20)), meshes=range(30)))
    (track,) = plan.tracks
    assert np.isfinite(track.landmarks).all()


def test_a_face_is_covered_before_it_was_found_and_after_it_was_lost(plan_of):
    (track,) = plan_of(Roles(seen=range(12, 18), meshes=range(12, 18))).tracks
    assert frames_of(track) == set(range(7, 23))


def test_a_single_false_alarm_does_not_last(plan_of):
    plan = plan_of(Roles(seen=range(30), meshes=range(30), alarms={15}))
    face, alarm = plan.tracks
    assert len(face) == 30
    assert len(alarm) <= 5


def test_no_face_is_drawn_on_what_no_detector_was_ever_sure_of(plan_of):
    (track,) = plan_of(Roles(seen=range(10, 20), meshes=range(10, 20), score=0.4)).tracks
    assert frames_of(track) >= set(range(10, 20))  # but it is covered
    assert np.isnan(track.landmarks).all() and np.isnan(track.blendshapes).all()


def test_only_faces_in_the_region_are_treated_and_the_others_are_named(plan_of):
    plan = plan_of(Roles(seen=range(30), alarms=range(30)), "select.region=60,0,96,40")
    assert [track.boxes[0, 0] > 60 for track in plan.tracks] == [True]
    assert [track.boxes[0, 0] > 60 for track in plan.left] == [False]
    assert set(plan.identities) == {track.person for track in plan.tracks}
    assert "recognisable on purpose" in plan.notes[-1]


def test_a_place_can_be_obscured_for_a_while(plan_of):
    plan = plan_of(Roles(seen=range(30)), "select.obscure=0,0,10,10@0.2-0.4")
    (forced,) = (track for track in plan.tracks if track.origin[0] == Origin.FORCED)
    assert frames_of(forced) == set(range(5, 11))
    assert forced.boxes[0].tolist() == [0, 0, 10, 10]
    assert forced.person in plan.identities


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "5,5,1,9", "0,0,9,9@4-2", "0,0,9,9@", "0,0,inf,9"])
def test_regions_that_make_no_sense_are_refused(text):
    with pytest.raises(SettingsError, match="--region"):
        parse_regions(text, "--region")


@given(st.lists(st.tuples(*[st.integers(0, 99)] * 2, *[st.integers(1, 99)] * 2), max_size=4))
def test_regions_survive_their_text(values):
    boxes = [[x, y, x + w, y + h] for x, y, w, h in values]
    text = " ".join(",".join(map(str, box)) for box in boxes)
    assert [region.box.tolist() for region in parse_regions(text, "--region")] == boxes


def test_in_doubt_a_person_is_treated():
    boxes, times = np.array([[0, 0, 10, 10]], np.float32), np.zeros(1, np.float32)
    one, alike, other = unit(1), unit(1, 2), unit(0, 0, 1)  # the second: cosine .45
    keep, only = Selection(keep=one), Selection(only=one)
    assert [keep.treats([(boxes, times)], e) for e in (one, alike, other, None)] == [False, True, True, True]
    assert [only.treats([(boxes, times)], e) for e in (one, alike, other, None)] == [True, True, False, True]
    here = Selection(regions=(Region(np.array([5, 5, 20, 20], np.float32), 1.0, 2.0),))
    assert not here.treats([(boxes, times)], one)
    assert here.treats([(boxes, times + 1.5)], one)
