"""New faces are led away from those they replace, and what that takes is never written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_cut import cut_sample
from test_plan import a_plan

from vidanon.audit.studio import read_frames
from vidanon.identity.away import led_away
from vidanon.identity.bank import load_bank
from vidanon.identity.embed import SFace
from vidanon.identity.sources import VIEWS, with_sources
from vidanon.models.registry import ModelStore
from vidanon.plan import analyse
from vidanon.planfile import load_plan, save_plan
from vidanon.renderer import Renderer
from vidanon.rendersummary import RenderSummary
from vidanon.settings import Settings, load_settings
from vidanon.types import EMBEDDING_SIZE, IdentityCode, Plan, Track

FRAMES = 10


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(EMBEDDING_SIZE).astype(np.float32)
    return vector / np.linalg.norm(vector)


@given(seed=st.integers(0, 10_000))
def test_a_face_led_away_is_less_like_the_source_and_still_itself(seed: int) -> None:
    vector, source = unit(seed), unit(seed + 1)
    away = led_away(IdentityCode("a", vector), source)
    assert away.dtype == np.float32
    assert np.linalg.norm(away) == pytest.approx(1, abs=1e-5)
    assert away @ source < vector @ source - 0.1
    assert away @ vector > 0.8


@given(seed=st.integers(0, 10_000))
def test_after_every_refusal_faces_are_led_further_away(seed: int) -> None:
    vector, source = unit(seed), unit(seed + 1)
    alike = [float(led_away(IdentityCode("a", vector, refused=n), source) @ source) for n in range(4)]
    assert alike[0] > alike[1] + 0.05 and alike[1] > alike[2] + 0.02
    assert alike[3] == alike[2], "and in the end no further"
    nudged = led_away(IdentityCode("a", vector, refused=1, nudged=2), source)
    assert float(nudged @ source) == alike[1], "a slight one asks for the same person"


@given(seed=st.integers(0, 10_000))
def test_what_shows_sex_age_and_beard_stays_that_of_the_fictional_person(seed: int) -> None:
    vector, directions = unit(seed), load_bank().look_directions
    before = directions @ vector
    after = directions @ led_away(IdentityCode("a", vector), unit(seed + 1))
    assert before @ after == pytest.approx(np.linalg.norm(before) * np.linalg.norm(after), rel=1e-4)


def test_new_faces_are_drawn_further_apart_than_the_people_of_the_bank_are() -> None:
    people = np.random.default_rng(5).choice(len(load_bank()), 100, replace=False)
    codes = [load_bank().code(int(person)) for person in people]
    asked = np.stack([led_away(code, None) for code in codes])
    before = np.stack([code.vector for code in codes])
    assert np.linalg.norm(asked, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(asked.mean(axis=0)) < np.linalg.norm(before.mean(axis=0)) - 0.1
    assert (asked * before).sum(axis=1).min() > 0.8, "and everybody is still the same person"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few frames of a real person."""
    return cut_sample(tmp_path_factory.mktemp("away") / "clip.mp4", 0, FRAMES)


@pytest.fixture(scope="module")
def plan(clip: Path) -> Plan:
    return analyse(clip, Settings(), ModelStore())


def test_a_plan_file_holds_no_embedding_and_rendering_takes_it_anew(
    clip: Path, plan: Plan, tmp_path: Path
) -> None:
    assert set(plan.sources) == {0}
    save_plan(plan, tmp_path / "with.json")
    save_plan(replace(plan, sources={}), tmp_path / "without.json")
    assert (tmp_path / "with.json").read_bytes() == (tmp_path / "without.json").read_bytes()
    again = load_plan(tmp_path / "with.json")
    assert again.sources == {}
    found = with_sources(clip, again, ModelStore(), Settings().runtime).sources
    assert found.keys() == plan.sources.keys()
    assert np.array_equal(found[0].embedding, plan.sources[0].embedding)
    assert np.array_equal(found[0].look, plan.sources[0].look)
    assert [view.crop.tobytes() for view in found[0].views] == [
        v.crop.tobytes() for v in plan.sources[0].views
    ]
    assert len(found[0].views) == VIEWS
    assert np.linalg.norm(found[0].embedding) == pytest.approx(1, abs=1e-5)


def test_where_a_face_failed_is_looked_at_too(clip: Path, plan: Plan, tmp_path: Path) -> None:
    codes = tuple(replace(code, failed_at=(3, 7)) for code in plan.spares[0][:2])
    save_plan(replace(plan, spares={0: codes}), tmp_path / "failed.json")
    failed = load_plan(tmp_path / "failed.json")
    assert [code.failed_at for code in failed.spares[0]] == [(3, 7), (3, 7)]
    for known in (failed, replace(failed, sources=plan.sources)):
        scenes = with_sources(clip, known, ModelStore(), Settings().runtime).sources[0].failed
        assert [frame.index for frame, _ in scenes] == [3, 7]
    assert plan.sources[0].failed == (), "nothing is looked at that nobody asks for"


def test_frames_with_a_hand_before_the_face_are_left_out(tmp_path: Path) -> None:
    """A hand passes the face from the 20th of these frames on."""
    clip = cut_sample(tmp_path / "hand.mp4", 1.6, 36)
    plan = analyse(clip, Settings(), ModelStore())
    scenes = [frame.index for frame, _ in plan.sources[0].scenes]
    assert len(scenes) >= VIEWS and max(scenes) < 22
    failed = replace(plan.identities[0], failed_at=(3, 30))

    def looked_at(track: Track) -> list[int]:
        asked = replace(plan, tracks=(track,), identities={0: failed})
        found = with_sources(clip, asked, ModelStore(), Settings().runtime).sources[0].failed
        return [frame.index for frame, _ in found]

    assert looked_at(plan.tracks[0]) == [3]
    over = np.arange(len(plan.tracks[0])) > 25
    assert looked_at(replace(plan.tracks[0], covered=over)) == [3, 30], "unless the face is drawn over it"


def test_a_plan_without_faces_asks_for_nothing(plain_clip: Path) -> None:
    plan = a_plan()
    hidden = replace(plan.tracks[0], crop_from_frame=np.full((4, 2, 3), np.nan, np.float32))
    assert (
        with_sources(plain_clip, replace(plan, tracks=(hidden,)), ModelStore(), Settings().runtime).sources
        == {}
    )


def test_what_is_drawn_is_less_like_the_source(clip: Path, plan: Plan) -> None:
    settings, embed = load_settings(None, ["render.exit_px=256"]), SFace(ModelStore(), 1)
    track, frames = plan.tracks[0], read_frames(clip, {2, 5, 8})

    def likeness(plan: Plan) -> float:
        renderer, found = Renderer(plan, settings, ModelStore(), RenderSummary()), []
        for frame in frames:
            landmarks = track.landmarks[frame.index - track.start].astype(np.float32)
            image, shown = renderer.still(frame, {track.id})
            assert track.id in shown
            found.append(embed(frame.image, landmarks) @ embed(image, landmarks))
        return float(np.mean(found))

    assert likeness(plan) < likeness(replace(plan, sources={})) - 0.02
