"""Plans: what analysis finds in a real clip, and the file format."""

import json
from dataclasses import fields, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidanon.errors import ModelsError, OutputError, SettingsError
from vidanon.models.registry import ModelStore
from vidanon.plan import analyse
from vidanon.planfile import load_plan, save_plan
from vidanon.settings import Settings
from vidanon.stages.decode import Decoder
from vidanon.stages.encode import Encoder
from vidanon.types import IdentityCode, Plan, Track, VideoInfo


def a_plan(n=4):
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(0, 100, (n, 478, 2)).astype(np.float32)
    landmarks[1] = np.nan
    track = Track(
        id=0,
        person=3,
        start=2,
        boxes=np.tile(np.array([1, 2, 30, 40], np.float32), (n, 1)),
        scores=np.ones(n, np.float32),
        origin=np.zeros(n, np.uint8),
        landmarks=landmarks,
        blendshapes=np.zeros((n, 52), np.float32),
        crop_from_frame=np.zeros((n, 2, 3), np.float32),
        covered=np.arange(n) == 2,
    )
    info = VideoInfo(Path("a.mp4"), 64, 48, Fraction(1, 90000), Fraction(30000, 1001), 8, 0, "h264", 8, 1)
    vector = np.eye(128, dtype=np.float32)[5]
    codes = {3: IdentityCode("bank-00005", vector, np.ones(512, np.float32))}
    return Plan(info, 8, (5,), (track,), codes, {"detect": {"min_score": 0.3}}, ("a note",))


def test_a_plan_survives_its_file(tmp_path):
    plan = a_plan()
    save_plan(plan, tmp_path / "plan.json")
    again = load_plan(tmp_path / "plan.json")
    assert replace(again, tracks=(), identities={}) == replace(plan, tracks=(), identities={})
    for field in fields(Track):
        before, after = getattr(plan.tracks[0], field.name), getattr(again.tracks[0], field.name)
        assert np.array_equal(before, after, equal_nan=field.name == "landmarks")
    assert np.array_equal(again.identities[3].vector, plan.identities[3].vector)


BROKEN = {
    "format": "other",
    "version": 99,
    "frames": 3,
    "cuts": [9],
    "tracks": [{}],
    "identities": {},
    "info": {"path": "x"},
    "settings": 7,
    "notes": 1,
}


@pytest.mark.parametrize("key", BROKEN)
def test_a_plan_that_does_not_fit_is_refused_in_one_line(tmp_path, key):
    path = tmp_path / "plan.json"
    save_plan(a_plan(), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: BROKEN[key]}))
    with pytest.raises(SettingsError, match=r"plan\.json is not valid") as caught:
        load_plan(path)
    assert "\n" not in str(caught.value)


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
)
@settings(max_examples=60)
def test_any_other_file_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("plan") / "p.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match="plan "):
        load_plan(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nothing\.json"):
        load_plan(tmp_path / "nothing.json")
    with pytest.raises(OutputError, match="no-folder"):
        save_plan(a_plan(), tmp_path / "no-folder" / "plan.json")


def test_analysis_finds_the_faces_of_the_sample_clip(tmp_path):
    models = ModelStore(offline=True)
    try:
        clip = models.path("sample-clip")
    except ModelsError as error:
        pytest.skip(f"needs the sample clip: {error}")
    short = tmp_path / "short.mp4"
    with Decoder(clip) as video, Encoder(clip, video.info, short, Settings().encode) as encoder:
        for frame in islice(video, 30):
            encoder.write(frame)
    seen = []
    plan = analyse(short, Settings(), models, lambda done, total: seen.append(done))
    assert seen == list(range(1, plan.frames + 1))
    assert plan.tracks
    assert any(np.isfinite(track.landmarks[:, 0, 0]).mean() > 0.8 for track in plan.tracks)
    assert {track.person for track in plan.tracks} == set(plan.identities)
    for track in plan.tracks:
        found = np.isfinite(track.landmarks[:, 0, 0])
        assert np.array_equal(found, np.isfinite(track.crop_from_frame[:, 0, 0]))
        assert np.array_equal(found, np.isfinite(track.blendshapes[:, 0]))
        assert track.start >= 0
        assert track.end <= plan.frames
