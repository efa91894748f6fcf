"""New faces are led nearer to the fictional person who was asked for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vidanon.evaluate_mapper import Bench, Job
from vidanon.identity.bank import load_bank
from vidanon.identity.keep import Aim
from vidanon.identity.reach import DAMPING, TAKEN_ALONG, TRIED_ALONG, reach_directions, responses, step
from vidanon.models.registry import ModelStore
from vidanon.recognisers import EDGEFACE, SFACE
from vidanon.stages.head_pose import angle_deg
from vidanon.training.reach import DIRECTIONS, candidates, most_telling
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
    w, directions = random.standard_normal(512).astype(np.float32), reach_directions()
    found = responses(lambda w: slopes @ w, w, directions)
    wanted = slopes @ directions
    np.testing.assert_allclose(found, wanted, atol=1e-3 * float(np.abs(wanted).max()))


def test_more_of_the_person_shows_and_nothing_else_moves() -> None:
    """EdgeFace, which takes no part, has to see it as well."""
    bench, bank = Bench(ModelStore(), None, 2), load_bank()
    rows = np.flatnonzero(~bank.child & (bank.glasses < 0.1))[:24]
    subjects = [s for s in (bench.subject(w) for w in bank.w[rows]) if s is not None]
    jobs, people = [], []
    for number, subject in enumerate(subjects[:12]):
        person = subjects[number + 12]
        kept = Aim(person.seen.sface)
        jobs += [
            Job(kept, subject),
            Job(bench.keeper.nearer(kept, [subject.view], (TRIED_ALONG, *TAKEN_ALONG)), subject),
        ]
        people += [person, person]
    seen = [o for _, o in bench.outputs(jobs, "nearer")]
    found = np.array(
        [
            [o.embeddings[r.name] @ p.seen.embeddings[r.name] for r in (SFACE, EDGEFACE)]
            + [
                angle_deg(o.turn, j.attributes.seen.turn),
                np.abs(o.blendshapes - j.attributes.seen.blendshapes).mean(),
            ]
            for j, p, o in zip(jobs, people, seen, strict=True)
            if o is not None
        ]
    )
    assert len(found) == len(jobs)
    before, after = found[::2].mean(axis=0), found[1::2].mean(axis=0)
    assert after[0] > before[0] + 0.03 and after[1] > before[1] + 0.01
    assert after[2] < before[2] + 0.3 and after[3] < before[3] + 0.005


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
