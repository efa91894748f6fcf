"""New faces keep looks and head pose of those whom they replace, as far as can be read."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.evaluate_mapper import Bench, Job
from vidanon.identity.away import led_away
from vidanon.identity.bank import Bank, load_bank
from vidanon.identity.keep import ANCESTRY, BEARD, FREE, GLASSES, Aim, missing
from vidanon.identity.shade import brow_depth
from vidanon.identity.within import FRAME, too_far
from vidanon.models.registry import ModelStore
from vidanon.stages.brows import darkened
from vidanon.stages.head_pose import angle_deg
from vidanon.stages.outline import brow_mask
from vidanon.stages.segment import sockets
from vidanon.types import Float

AGE = 1
LABELS = st.lists(st.floats(0, 1, width=32), min_size=9, max_size=9)


def labels(values: list[float]) -> Float:
    found = np.array(values, np.float32)
    found[ANCESTRY] /= max(float(found[ANCESTRY].sum()), 1e-3)
    return found


@given(wanted=LABELS, found=LABELS)
def test_what_is_added_never_goes_beyond_what_is_missing(wanted: list[float], found: list[float]) -> None:
    gap = labels(wanted) - labels(found)
    added = missing(labels(wanted), labels(found))
    gap[ANCESTRY] -= gap[ANCESTRY].mean()  # shares change together
    assert (np.abs(added) <= np.abs(gap) + 1e-6).all()
    assert (added * gap >= 0).all()
    small = np.abs(gap) <= FREE
    small[ANCESTRY] = False
    assert not added[small].any()
    assert abs(float(added[ANCESTRY].sum())) < 1e-5


def test_nothing_is_added_to_a_face_that_fits() -> None:
    face = labels([1, 0.4, 0, 1, 0, 0, 0, 0, 0])
    assert not missing(face, face).any()


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(ModelStore(), None, 2)


def reading(bench: Bench, bank: Bank, w: Float) -> Float:
    seen = bench.see(bench.picture(w))
    assert seen is not None
    return bank.read(seen.sface, bench.look(seen.picture, seen.landmarks)).labels


def test_a_bearded_man_stays_bearded_and_an_old_one_old(bench: Bench) -> None:
    bank = load_bank()
    men = (bank.female < 0.1) & ~bank.child
    replaced = int(np.flatnonzero(men & (bank.beard > 0.8) & (bank.age > 45))[0])
    shaved = np.flatnonzero(men & (bank.beard < 0.1) & (bank.age < 28))
    strangers = shaved[np.argsort(bank.embeddings[shaved] @ bank.embeddings[replaced])[:4]]
    subject = bench.subject(bank.w[replaced])
    assert subject is not None
    source = bench.source(subject)
    wanted = bank.read(source.embedding, source.look).labels
    found = []
    for stranger in strangers:
        code = bank.code(int(stranger))
        aim, refused = (
            bench.keeper.aim(code, source),
            bench.keeper.aim(replace(code, refused=1), source),
        )
        assert aim.beard > refused.beard > 0, "the source's own beard shows less after a refusal"
        w = bench.latent(aim.asked, subject)
        found.append([reading(bench, bank, x) for x in (w, aim.lead(w), refused.lead(w))])
    before, after, plain = np.mean(found, axis=0)
    assert abs(after[AGE] - wanted[AGE]) < abs(before[AGE] - wanted[AGE]) - 0.05
    assert abs(plain[AGE] - wanted[AGE]) > abs(after[AGE] - wanted[AGE]) + 0.02
    assert min(after[BEARD], plain[BEARD]) > before[BEARD] + 0.2


def test_glasses_are_worn_throughout_or_never(bench: Bench) -> None:
    """Left alone, they came and went with gaze and smile."""
    bank = load_bank()
    wearers, bare = (np.flatnonzero(rows)[:12] for rows in (bank.glasses > 0.9, bank.glasses < 0.1))
    for worn, rows in ((False, wearers), (True, bare)):
        subject = bench.subject(bank.w[(bare if rows is wearers else wearers)[0]])
        assert subject is not None
        aim = bench.keeper.aim(bank.code(int(rows[1])), bench.source(subject))
        aim = aim._replace(shift=np.zeros_like(aim.shift))
        before, after = (
            [reading(bench, bank, w)[GLASSES] for w in some]
            for some in (bank.w[rows], [aim.lead(w) for w in bank.w[rows]])
        )
        assert np.mean(np.array(before) > 0.5) == (0 if worn else 1), "so they were chosen"
        assert np.mean((np.array(after) > 0.5) == worn) > 0.8


def test_dark_brows_stay_dark(bench: Bench) -> None:
    subjects = [s for s in (bench.subject(w) for w in load_bank().w[:60]) if s is not None]
    depths = [brow_depth(s.seen.picture, s.seen.landmarks) for s in subjects]
    dark, fair = (subjects[int(pick(depths))] for pick in (np.argmax, np.argmin))
    strangers = [load_bank().code(row) for row in range(60, 66)]
    gains = [bench.keeper.aim(code, bench.source(dark)).brow_gain for code in strangers]
    assert np.mean(gains) > 1.3 and min(gains) >= 1
    row = int(np.argmax(gains))
    refused = bench.keeper.aim(replace(strangers[row], refused=1), bench.source(dark)).brow_gain
    assert 1 < refused < gains[row], "a recogniser may have known the source by them"
    assert np.median([bench.keeper.aim(code, bench.source(fair)).brow_gain for code in strangers]) < 1.1


def test_only_the_hairs_of_fair_brows_are_darkened(bench: Bench) -> None:
    subjects = [s for s in (bench.subject(w) for w in load_bank().w[:20]) if s is not None]
    for seen in (subject.seen for subject in subjects[:6]):
        drawn = darkened(seen.picture, seen.landmarks, 2)
        before, after = (brow_depth(picture, seen.landmarks) for picture in (seen.picture, drawn))
        assert 1.3 * before < after < 2.2 * before
        taken = seen.picture.astype(int) - drawn
        brows = brow_mask(seen.landmarks, taken.shape)
        assert taken.min() == 0, "nothing gets brighter"
        assert not taken[cv2.dilate(brows, np.ones((61, 61), np.uint8)) == 0].any(), "nothing but the brows"
        within = taken.max(axis=2)[brows > 0.9]
        assert np.quantile(within, 0.9) > 2 * np.quantile(within, 0.2), "not painted over"


def test_brows_are_seen_where_sockets_are_in_the_shade(bench: Bench) -> None:
    subjects = [s for s in (bench.subject(w) for w in load_bank().w[:20]) if s is not None]
    seen = max((s.seen for s in subjects), key=lambda seen: brow_depth(seen.picture, seen.landmarks))
    shade = 1 - 0.5 * cv2.GaussianBlur(sockets(seen.landmarks, seen.picture.shape), (0, 0), 12)
    shaded, fair = (
        np.clip(picture * shade[..., None], 0, 255).astype(np.uint8)
        for picture in (seen.picture, cv2.medianBlur(seen.picture, 31))
    )
    assert brow_depth(fair, seen.landmarks) < 0.3 * brow_depth(shaded, seen.landmarks)


def test_the_head_is_held_as_the_source_holds_it(bench: Bench) -> None:
    """Each new face nods and turns by its own angle too much or too little."""
    rows = np.flatnonzero(~load_bank().child)[:16]
    subjects = [s for s in (bench.subject(w) for w in load_bank().w[rows]) if s is not None]
    jobs = []
    for number, subject in enumerate(subjects):
        aim = bench.keeper.aim(load_bank().code(int(rows[number - 1])), bench.source(subject))
        jobs += [Job(Aim(aim.asked), subject), Job(aim, subject)]
    errors = [
        angle_deg(job.attributes.seen.turn, seen.turn)
        for job, (_, seen) in zip(jobs, bench.outputs(jobs, "pose"), strict=True)
        if seen is not None
    ]
    assert len(errors) == len(jobs)
    before, after = np.mean(errors[::2]), np.mean(errors[1::2])
    assert after < 0.75 * before and after < 1.6


def test_nothing_is_kept_of_somebody_whose_face_was_never_seen(bench: Bench) -> None:
    code = load_bank().code(0)
    aim = bench.keeper.aim(code, None)
    assert np.array_equal(aim.asked, led_away(code, None))
    w = np.ones(512, np.float32)
    assert np.array_equal(aim.lead(w), w - too_far(w, FRAME))
