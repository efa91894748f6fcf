"""A new face that is taken for the source is led away until it is not."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from sample_cut import cut_sample
from test_evaluate import model
from torch import Tensor, nn
from torch.nn import functional

from vidanon.audit.studio import read_frames
from vidanon.errors import ModelsError
from vidanon.geometry import apply
from vidanon.identity import estrange, search
from vidanon.identity.bank import load_bank
from vidanon.identity.estrange import LIMITS, Estranger, Placed, Scenes, Sight, identity_directions
from vidanon.identity.searcher import Searcher, Task
from vidanon.identity.sources import with_sources
from vidanon.identity.views import most_different
from vidanon.models.registry import ModelStore
from vidanon.networks.likeness import Likeness
from vidanon.plan import analyse
from vidanon.recognisers import DLIB, EDGEFACE, RECOGNISERS, SFACE, Recogniser, load_recognisers
from vidanon.renderer import Renderer
from vidanon.rendersummary import RenderSummary
from vidanon.settings import load_settings
from vidanon.stages.synthesize import Synthesizer, as_input
from vidanon.types import Float, IdentityCode, Plan, Source

FRAMES = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few frames of a real person."""
    return cut_sample(tmp_path_factory.mktemp("estrange") / "clip.mp4", 0, FRAMES)


@pytest.fixture(scope="module")
def plan(clip: Path) -> Plan:
    """The person is to be replaced by somebody who is nearly their own likeness."""
    for name in ("face-landmarker", "edgeface", "dlib-resnet"):
        model(name)
    plan = analyse(clip, load_settings(None, []), ModelStore())
    mixed = plan.sources[0].embedding + 0.3 * load_bank().embeddings[0]
    likeness = IdentityCode("likeness", (mixed / np.linalg.norm(mixed)).astype(np.float32))
    return replace(plan, identities={0: likeness})


def itself(source: Source, number: int) -> Placed:
    """Return the source in its own place."""
    frame, track = source.scenes[number]
    landmarks = track.landmarks[0].astype(np.float32)
    unit = apply(track.crop_from_frame[0], landmarks)
    return Placed(np.zeros(512, np.float32), frame.image, unit, landmarks)


def margins(renderer: Renderer, clip: Path, plan: Plan) -> dict[Recogniser, float]:
    """Return how far recognisers are from taking drawn frames for the source, on average."""
    embed, track = load_recognisers(ModelStore(), 2), plan.tracks[0]
    found = []
    for frame in read_frames(clip, {2, 5, 9}):
        image, shown = renderer.still(frame, {track.id})
        assert shown
        landmarks = track.landmarks[frame.index - track.start].astype(np.float32)
        scores = {
            r: r.score(embed[r.name](frame.image, landmarks), embed[r.name](image, landmarks))
            for r in RECOGNISERS
        }
        found.append([r.margin(scores[r]) for r in RECOGNISERS])
    return dict(zip(RECOGNISERS, np.mean(found, axis=0).tolist(), strict=True))


def test_recognisers_take_a_new_face_for_a_stranger_once_it_is_led_away(clip: Path, plan: Plan) -> None:
    models, settings = ModelStore(), load_settings(None, [])
    led = Renderer(plan, settings, models, RenderSummary())
    as_it_is = led.previewing(plan.identities, 256)
    before, after = margins(as_it_is, clip, plan), margins(led, clip, plan)
    assert before[SFACE] < 0 < after[SFACE]
    for unasked in (EDGEFACE, DLIB):  # take no part in it
        assert after[unasked] > before[unasked] + 0.03, unasked.name


class _Painted(nn.Module):
    """A face that w makes shine or gives dark marks; a recogniser that looks at both."""

    def __init__(self) -> None:
        super().__init__()
        looks = np.zeros((2, 1, 3, 112, 112), np.float32)
        looks[0, ..., 20:40, 30:80], looks[1, ..., 70:90, 30:80] = 80, -40
        self.register_buffer("looks", torch.from_numpy(looks))

    def drawn(self, w: Tensor, *_: object) -> Tensor:
        return w[0, 0] * self.looks[0] + w[0, 1] * self.looks[1]

    def embedding(self, crop: Tensor) -> Tensor:
        seen = [((crop - 128) * look).mean() / look.square().mean() for look in self.looks]
        return functional.normalize(torch.stack([torch.ones_like(seen[0]), *seen]), dim=0)


@pytest.mark.parametrize(("price", "shines"), [(0.0, True), (search.GLARE, False)])
def test_hard_light_is_no_way_away(monkeypatch: pytest.MonkeyPatch, price: float, shines: bool) -> None:
    monkeypatch.setattr(search, "GLARE", price)
    painted, w = _Painted(), np.zeros(512, np.float32)
    w[:2] = 0.5
    crop = 128 + painted.drawn(torch.from_numpy(w)[None])[0].permute(1, 2, 0).numpy()
    source = np.array([1, 0, 0], np.float32)
    alpha = np.ones((112, 112), np.float32)
    unit, levels = np.eye(2, 3, dtype=np.float32), crop.astype(np.uint8)
    sight = Sight(source, source, w, levels, alpha, alpha, unit, 0.4, 20.0)
    found = search.Search(cast(Likeness, painted), np.eye(512, 2, dtype=np.float32), source)
    with ThreadPoolExecutor(1) as pool:
        shift = found.go_on([sight], 0.7, pool)
    assert bool(shift[0] > 0) is shines
    assert shift[1] > 0, "dark marks hide as well"


def test_after_a_refusal_it_is_led_away_where_it_failed(
    clip: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, settings, looked_at = ModelStore(), load_settings(None, []), []

    def shift(_: Estranger, place: object, scenes: Scenes, *__: object) -> Float:
        looked_at.append({frame.index for frame, _ in scenes})
        return np.zeros(512, np.float32)

    monkeypatch.setattr(Estranger, "shift", shift)
    (frame,) = read_frames(clip, {5})
    for _ in range(2):
        failed_at = tuple(sorted(set(range(FRAMES)) - looked_at[0]))[:2] if looked_at else ()
        code = replace(plan.identities[0], refused=len(failed_at), failed_at=failed_at)
        known = replace(plan, identities={0: code}, sources={0: replace(plan.sources[0], found={})})
        known = with_sources(clip, known, models, settings.runtime)
        Renderer(known, settings, models, RenderSummary()).still(frame, {plan.tracks[0].id})
    assert failed_at and looked_at[1] >= set(failed_at)


def test_less_may_be_seen_of_who_is_seen_in_few_scenes(
    clip: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def shift(
        _: Estranger, place: object, scenes: Scenes, wanted: object, directions: object, limit: float
    ) -> Float:
        limits.append(limit)
        return np.zeros(512, np.float32)

    monkeypatch.setattr(Estranger, "shift", shift)
    models, settings = ModelStore(), load_settings(None, [])
    (frame,) = read_frames(clip, {5})
    for count in (1, 3, len(plan.sources[0].scenes)):
        source = replace(plan.sources[0], scenes=plan.sources[0].scenes[:count], found={})
        fresh = replace(plan, sources={0: source})
        Renderer(fresh, settings, models, RenderSummary()).still(frame, {plan.tracks[0].id})
    assert limits[0] < limits[1] < limits[2] == LIMITS[0]


def test_a_face_is_led_the_same_way_with_any_number_of_threads(
    clip: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estrange, "ROUNDS", 2)
    found = []
    for workers in (1, 3):
        settings = load_settings(None, [f"runtime.workers={workers}"])
        # What was found before is left out, and most of the scenes, to be quick.
        source = replace(plan.sources[0], scenes=plan.sources[0].scenes[:3], found={})
        fresh = replace(plan, sources={0: source})
        renderer = Renderer(fresh, settings, ModelStore(), RenderSummary())
        (frame,) = read_frames(clip, {5})
        found.append(renderer.still(frame, {plan.tracks[0].id})[0])
    np.testing.assert_array_equal(*found)


def test_a_stranger_stays_as_it_is_and_costs_no_search(plan: Plan) -> None:
    source = plan.sources[0]

    def unasked() -> Float:
        raise AssertionError("nobody need be led anywhere")

    estranger = Estranger(ModelStore(), "cpu", 2)
    for limit in LIMITS:
        assert not estranger.shift(
            lambda number, shift: None, source.scenes, source.embedding, unasked, limit
        ).any()
    assert not estranger.shift(lambda number, shift: None, (), source.embedding, unasked, LIMITS[0]).any()


def test_a_search_that_is_killed_leaves_the_face_where_it_is(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = plan.sources[0]
    monkeypatch.setattr(sys, "executable", "false")  # a process that ends at once
    shift = Estranger(ModelStore(), "cpu", 2).shift(
        lambda number, shift: itself(source, number),
        source.scenes[:2],
        source.embedding,
        lambda: np.zeros((512, 4), np.float32),
        LIMITS[0],
    )
    assert not shift.any()


def test_a_search_says_which_model_is_missing(tmp_path: Path) -> None:
    task = Task(tmp_path, "cpu", 1, np.zeros((512, 4), np.float32), np.zeros(128, np.float32))
    with Searcher(lambda: task) as searcher, pytest.raises(ModelsError, match="missing"):
        searcher.go_on([], 0.2)


def test_a_face_is_not_led_so_far_that_the_gate_stops_it(plan: Plan) -> None:
    source, asked = plan.sources[0], []

    def place(number: int, shift: Float) -> Placed | None:
        """Return the source itself, until it would be led anywhere."""
        asked.append(shift)
        return None if shift.any() else itself(source, number)

    latent = Synthesizer(ModelStore(), "cpu", 2).latent
    shift = Estranger(ModelStore(), "cpu", 2).shift(
        place,
        source.scenes[:2],
        load_bank().embeddings[0],
        lambda: identity_directions(latent, source.views[0], load_bank().embeddings[0], True),
        LIMITS[0],
    )
    assert asked[-1].any(), "it was tried"
    assert not shift.any()


def test_directions_tell_people_apart_and_looks_only_after_a_refusal(plan: Plan) -> None:
    source: Source = plan.sources[0]
    latent = Synthesizer(ModelStore(), "cpu", 2).latent
    kept, free = (
        identity_directions(latent, source.views[0], source.embedding, kept) for kept in (True, False)
    )
    assert kept.shape == free.shape
    assert np.abs(kept.T @ kept - np.diag(np.diag(kept.T @ kept))).max() < 1e-3 * np.abs(kept.T @ kept).max()
    slopes = load_bank().w_slopes
    told = [np.linalg.norm(directions.T @ slopes.T, axis=0).mean() for directions in (kept, free)]
    assert told[0] < told[1], "along them sex, age, ancestry, beard and glasses change less"


def test_directions_leave_the_expression_alone(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    view, bank = plan.sources[0].views[0], load_bank()
    latent = Synthesizer(ModelStore(), "cpu", 2).latent
    crop, laughing = as_input(view.crop), view.blendshapes.copy()
    laughing[[25, 44, 45, 7, 8]] += 0.4  # jaw, corners of the mouth, cheeks
    someone = bank.embeddings[len(bank) // 2]
    before, after = (latent(crop, someone, shapes, view.landmarks) for shapes in (view.blendshapes, laughing))

    def share() -> float:
        """Return how much of the change lies along the directions."""
        directions = identity_directions(latent, view, someone, True)
        along = (after - before) @ (directions / np.linalg.norm(directions, axis=0))
        return float(np.linalg.norm(along) / np.linalg.norm(after - before))

    with_expressions_out = share()
    monkeypatch.setattr(estrange, "EXPRESSIONS", 0)
    assert with_expressions_out < 0.5 < share()


def test_the_most_different_views_are_the_median_one_and_the_extremes() -> None:
    shapes = np.array([[0.0], [1.0], [2.1], [3.0], [9.0], [-5.0]], np.float32)
    assert most_different(shapes, 3) == [1, 4, 5]
    assert sorted(most_different(shapes, 99)) == list(range(6))
