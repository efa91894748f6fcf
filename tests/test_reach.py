"""New faces are led nearer to the fictional person who was asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.evaluate_mapper import Bench, Job, Subject
from vidanon.identity import keep
from vidanon.identity.bank import load_bank
from vidanon.identity.keep import Aim
from vidanon.identity.reach import DAMPING, reach_directions, responses, step
from vidanon.models.registry import ModelStore
from vidanon.recognisers import EDGEFACE, SFACE
from vidanon.stages.head_pose import angle_deg
from vidanon.training.reach import DIRECTIONS, USUAL_GAIN, candidates, most_telling, usual_step
from vidanon.types import Float

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, scale=st.floats(0.01, 3))
def test_a_step_pays_where_readings_change_evenly(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    response = (scale * random.standard_normal((16, 6))).astype(np.float32)
    lacking = random.standard_normal(16).astype(np.float32)

    def cost(went: Float) -> float:
        return float(((lacking - response @ went) ** 2).sum() + DAMPING * (went**2).sum())

    went = step(response, lacking)
    assert cost(went) <= cost(np.zeros(6, np.float32))
    for _ in range(8):
        other = went + 0.1 * random.standard_normal(6).astype(np.float32)
        assert cost(went) <= cost(other) + 1e-4


def test_responses_are_those_of_what_is_drawn() -> None:
    random = np.random.default_rng(0)
    slopes = random.standard_normal((128, 512)).astype(np.float32)
    found = responses(lambda w: slopes @ w, random.standard_normal(512).astype(np.float32))
    wanted = slopes @ reach_directions()
    np.testing.assert_allclose(found, wanted, atol=1e-3 * float(np.abs(wanted).max()))


def test_more_of_the_person_shows_and_nothing_else_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """EdgeFace, which takes no part, has to see it as well, and a little of it after the usual step alone."""
    bench, bank = Bench(ModelStore(), None, 2), load_bank()
    rows = np.flatnonzero(~bank.child & (bank.glasses < 0.1))[:24]
    subjects = [s for s in (bench.subject(w) for w in bank.w[rows]) if s is not None]
    pairs = list(zip(subjects[:12], subjects[12:], strict=False))

    def figures(lead: Callable[[Aim, Subject], Aim]) -> Float:
        """Return SFace and EdgeFace to the person, and how far pose and expression are off, on average."""
        jobs = [Job(lead(Aim(person.seen.sface), subject), subject) for subject, person in pairs]
        seen = [o for _, o in bench.outputs(jobs, "nearer") if o is not None]
        assert len(seen) == len(pairs)
        return np.mean(
            [
                [o.embeddings[r.name] @ person.seen.embeddings[r.name] for r in (SFACE, EDGEFACE)]
                + [
                    angle_deg(o.turn, subject.seen.turn),
                    np.abs(o.blendshapes - subject.seen.blendshapes).mean(),
                ]
                for (subject, person), o in zip(pairs, seen, strict=True)
            ],
            axis=0,
        )

    def nearer(aim: Aim, subject: Subject) -> Aim:
        return bench.keeper.nearer(aim, [subject.view], begin=True)

    before, after = figures(lambda aim, _: aim), figures(nearer)
    monkeypatch.setattr(keep, "STEPS", 0)
    begun = figures(nearer)
    assert begun[0] > before[0] + 0.02 and begun[1] > before[1] + 0.01
    assert after[0] > begun[0] + 0.03 and after[1] > begun[1] + 0.01
    for found in (begun, after):
        assert found[2] < before[2] + 0.5 and found[3] < before[3] + 0.005


@given(seed=SEEDS)
def test_the_usual_step_goes_only_where_faces_agree(seed: int) -> None:
    random = np.random.default_rng(seed)
    lacking = random.standard_normal(128).astype(np.float32)
    one = random.standard_normal((128, 6)).astype(np.float32)
    same = usual_step(np.stack([one] * 4)) @ lacking
    np.testing.assert_allclose(same, USUAL_GAIN * step(one, lacking), rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(usual_step(np.stack([one, -one])) @ lacking, 0, atol=1e-5)


def test_directions_tell_people_apart_and_keep_expressions_still() -> None:
    random = np.random.default_rng(1)
    size = DIRECTIONS + 10
    embedding = np.zeros((4, 128, size), np.float32)
    expression = np.zeros((4, 52, size), np.float32)
    embedding[:, np.arange(size), np.arange(size)] = 0.1
    expression[:, np.arange(10), np.arange(10)] = 0.5  # ten of them move the face
    found = most_telling(embedding, expression)
    assert found.shape == (size, DIRECTIONS)
    assert np.abs(found[:10]).max() < 1e-3 and np.abs(found[10:]).max() > 0.5
    latents = random.standard_normal((40, 6, 512)).astype(np.float32)
    latents[..., 7] *= 20
    widest = candidates(latents)[:, 0]
    assert np.abs(widest).argmax() == 7
    fixed = load_bank().w_slopes
    assert np.abs(fixed @ candidates(latents)).max() < 1e-3 * np.abs(fixed).sum(axis=1).max()
