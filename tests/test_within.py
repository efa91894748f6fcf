"""New faces are held within what the generator was trained to draw."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vidanon.identity.bank import load_bank
from vidanon.identity.within import FACE, FRAME, drawn, too_far
from vidanon.training.within import spread_of
from vidanon.types import Float

SEEDS = st.integers(0, 2**32 - 1)


def deviations_from_mean(w: Float) -> Float:
    """Return how far w lies from the mean along each axis, standard deviations."""
    return np.asarray((w - drawn().mean) @ drawn().axes / drawn().deviations)


@given(seed=SEEDS, far=st.floats(0, 30), most=st.sampled_from([FACE, FRAME]))
def test_no_w_is_further_out_than_drawn_ones(seed: int, far: float, most: float) -> None:
    random = np.random.default_rng(seed)
    w = drawn().mean + drawn().axes @ (far * drawn().deviations * random.standard_normal(512)).astype(
        np.float32
    )
    before, after = deviations_from_mean(w), deviations_from_mean(w - too_far(w, most))
    assert np.abs(after).max() < most + 0.05
    inside = np.abs(before) < most
    np.testing.assert_allclose(after[inside], before[inside], atol=0.05)
    assert (np.sign(after[~inside]) == np.sign(before[~inside])).all()


def test_a_w_that_is_not_too_far_out_stays_as_it_is() -> None:
    w = drawn().mean + drawn().axes @ (0.9 * FACE * drawn().deviations)
    assert not too_far(w, FACE).any()


def test_people_of_the_bank_hardly_change() -> None:
    """They were drawn by the generator; what is held are others."""
    w = load_bank().w[:200]
    changed = np.stack([np.linalg.norm(too_far(x, FACE)) / np.linalg.norm(x - drawn().mean) for x in w])
    assert np.median(changed) < 0.1


def test_the_spread_is_that_of_what_was_drawn() -> None:
    random = np.random.default_rng(0)
    axes, _ = np.linalg.qr(random.standard_normal((6, 6)))
    deviations = np.array([5, 3, 2, 1, 0.5, 0.1])
    w = (1 + (random.standard_normal((20000, 6)) * deviations) @ axes.T).astype(np.float32)
    found = spread_of(w)
    np.testing.assert_allclose(found.mean, 1, atol=0.1)
    np.testing.assert_allclose(found.deviations, deviations, rtol=0.05)
    np.testing.assert_allclose(np.abs(found.axes.T @ axes), np.eye(6), atol=0.05)
