"""Which frames are drawn before a new face is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from test_plan import a_plan

from vidanon.audit.preview import FRAMES, MAX_PERSONS, preview_frames
from vidanon.identity.bank import load_bank
from vidanon.types import Plan, Track

FRONT = np.random.default_rng(1).uniform(0, 100, (478, 2)).astype(np.float32)
TURNED = FRONT * np.float32([0.5, 1])
RAISED = FRONT * np.float32([1, 0.6])


def track(number: int, start: int, views: list[np.ndarray], person: int = 0) -> Track:
    count = len(views)
    return replace(
        a_plan(count).tracks[0],
        id=number,
        person=person,
        start=start,
        landmarks=np.stack(views),
        crop_from_frame=np.tile(np.float32([[0.01, 0, 0], [0, 0.01, 0]]), (count, 1, 1)),
    )


def plan_of(tracks: list[Track]) -> Plan:
    people = {one.person for one in tracks}
    code, spare = load_bank().code(0), load_bank().code(1)
    return replace(
        a_plan(),
        frames=max(one.end for one in tracks),
        tracks=tuple(tracks),
        identities=dict.fromkeys(people, code),
        spares=dict.fromkeys(people, (spare,)),
    )


def test_the_most_different_views_come_from_all_shots() -> None:
    shots = [track(0, 0, [FRONT] * 40), track(1, 40, [FRONT] * 5 + [TURNED] * 5), track(2, 50, [RAISED] * 4)]
    (wanted,) = preview_frames(plan_of(shots)).values()
    assert len(wanted) == FRAMES[0]
    assert sum(frame < 45 for frame in wanted) == 1
    assert sum(45 <= frame < 50 for frame in wanted) == 1
    assert sum(frame >= 50 for frame in wanted) == 1


def test_hidden_moments_are_not_drawn_and_who_has_no_other_face_is_not_either() -> None:
    hidden = track(0, 0, [FRONT] * 3 + [TURNED] * 7)
    hidden.crop_from_frame[3:] = np.nan
    plan = plan_of([hidden, track(1, 0, [FRONT] * 10, person=1)])
    assert max(preview_frames(plan)[0]) < 3
    assert set(preview_frames(replace(plan, spares={0: (load_bank().code(1),), 1: ()}))) == {0}


def test_of_a_crowd_those_are_drawn_who_show_most() -> None:
    crowd = [track(n, 0, [FRONT] * (2 + n), person=n) for n in range(MAX_PERSONS + 3)]
    assert set(preview_frames(plan_of(crowd))) == set(range(3, MAX_PERSONS + 3))
