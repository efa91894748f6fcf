"""Which frames are drawn before a new face is chosen, and which face is tried after a refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_plan import a_plan

from vidanon.audit import preview
from vidanon.audit.preview import (
    FRAMES,
    MAX_PERSONS,
    prefer_strangers,
    prefer_where_it_failed,
    preview_frames,
)
from vidanon.audit.studio import Draft
from vidanon.geometry import apply
from vidanon.identity.away import MOST_REFUSED
from vidanon.identity.bank import load_bank
from vidanon.models.registry import ModelStore
from vidanon.settings import Settings
from vidanon.stages.reduced import reduced
from vidanon.stages.synthesize import crop_face
from vidanon.types import Frame, Plan, Track

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


def test_a_frame_made_smaller_shows_the_same_face() -> None:
    rows, columns = np.mgrid[0:900, 0:1200].astype(np.float32)
    image = np.stack([rows / 4, columns / 5, 127 + 100 * np.sin((rows + columns) / 40)], 2).astype(np.uint8)
    frame = Frame(7, 700, image)
    unit_from_frame = np.float32([[1 / 800, 0.0003, -0.2], [-0.0003, 1 / 800, -0.1]])
    large = track(0, 5, [FRONT * 4 + 100] * 6)
    large = replace(large, crop_from_frame=np.tile(unit_from_frame, (6, 1, 1)))
    small, (alone,) = reduced(frame, [large])
    assert max(small.image.shape) < 500 and (alone.start, len(alone)) == (7, 1)
    before, after = crop_face(image, unit_from_frame), crop_face(small.image, alone.crop_from_frame[0])
    assert abs(before - after).mean() < 0.01
    for one, transform in ((large, unit_from_frame), (alone, alone.crop_from_frame[0])):
        np.testing.assert_allclose(
            apply(transform, one.landmarks[0]), apply(unit_from_frame, FRONT * 4 + 100), atol=1e-3
        )
    assert reduced(frame, [track(0, 5, [FRONT] * 6)])[0] is frame, "small faces need all their pixels"


class _Studio:
    """Face ``n`` (1: the refused one, no longer kept in looks; then the spares) is like the source as
    ``likeness[n - 1]`` says, and fits as ``strange[n - 1]`` says; blendshapes are off by ``off[n - 1]``."""

    likeness: tuple[dict[int, float], ...] = ()
    strange: tuple[float, ...] = ()
    off: tuple[float | None, ...] = (None,) * 4
    turns: tuple[int, ...] = ()

    def __init__(self, *_: object, estranges: bool = False) -> None: ...

    def freely_seen(self, person: int, frames: list[int]) -> list[int]:
        return frames

    def draw(self, wanted: dict[int, dict[int, list[int]]]) -> dict[int, dict[int, dict[int, Draft]]]:
        return {turn: self._draw(turn, mine) for turn, mine in wanted.items()}

    def _draw(self, turn: int, wanted: dict[int, list[int]]) -> dict[int, dict[int, Draft]]:
        seen, more, off = self.likeness[turn - 1], self.strange[turn - 1], self.off[turn - 1]
        _Studio.turns += (turn,)
        nobody = np.zeros(128, np.float32)
        return {
            person: {f: Draft(seen.get(f, 0.1), more, off, nobody) for f in frames}
            for person, frames in wanted.items()
        }


def _refused(
    monkeypatch: pytest.MonkeyPatch,
    likeness: list[dict[int, float]],
    strange: list[float],
    refused: int = 0,
    nudged: int = 0,
    failed_at: tuple[int, ...] = (),
    slight: tuple[int, ...] = (),
) -> Plan:
    """Return the plan after a refusal of frames 4 and 5, with three spares: bank-00001 to bank-00003."""
    monkeypatch.setattr(preview, "Studio", _Studio)
    monkeypatch.setattr(_Studio, "likeness", tuple(likeness))
    monkeypatch.setattr(_Studio, "strange", tuple(strange))
    monkeypatch.setattr(_Studio, "turns", ())
    monkeypatch.setattr(preview, "with_sources", lambda _, plan, *rest: plan)
    plan = plan_of([track(0, 0, [FRONT] * 5 + [TURNED] * 5)])
    plan = replace(
        plan,
        identities={0: replace(plan.identities[0], refused=refused, nudged=nudged, failed_at=failed_at)},
        spares={0: tuple(load_bank().code(n) for n in (1, 2, 3))},
    )
    return prefer_where_it_failed(Path("a.mp4"), plan, {0: [4, 5]}, Settings(), ModelStore(), slight)


def test_a_face_that_hides_comes_before_one_that_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "Studio", _Studio)
    # In the order of turns: the three spares, and (number -1) the first face.
    monkeypatch.setattr(_Studio, "likeness", ({1: 0.42}, {1: 0.34}, {1: 0.34}, {1: 0.36}))
    monkeypatch.setattr(_Studio, "strange", (0.0, 0.2, 0.1, 0.0))
    plan = plan_of([track(0, 0, [FRONT, TURNED, FRONT])])
    plan = replace(plan, spares={0: tuple(load_bank().code(n) for n in (1, 2, 3))})
    better, _ = prefer_strangers(Path("a.mp4"), plan, Settings(), ModelStore())
    names = [code.name for code in (better.identities[0], *better.spares[0])]
    assert names == ["bank-00003", "bank-00002", "bank-00000", "bank-00001"]
    monkeypatch.setattr(_Studio, "strange", (0.0, 0.6, 0.5, 0.7))
    better, _ = prefer_strangers(Path("a.mp4"), plan, Settings(), ModelStore())
    assert better.identities[0].name == "bank-00001", "unless none suits at all: it can be led away"


def test_frames_with_something_before_the_face_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    class Free(_Studio):
        def freely_seen(self, person: int, frames: list[int]) -> list[int]:
            return [frame for frame in frames if frame > 1]

        def draw(self, wanted: dict[int, dict[int, list[int]]]) -> dict[int, dict[int, dict[int, Draft]]]:
            drawn.update(frame for mine in wanted.values() for some in mine.values() for frame in some)
            return super().draw(wanted)

    drawn: set[int] = set()
    monkeypatch.setattr(preview, "Studio", Free)
    monkeypatch.setattr(_Studio, "likeness", ({},) * 4)
    monkeypatch.setattr(_Studio, "strange", (0.0,) * 4)
    views = [FRONT * np.float32([1 - n / 20, 1]) for n in range(10)]
    prefer_strangers(Path("a.mp4"), plan_of([track(0, 0, views)]), Settings(), ModelStore())
    assert min(drawn) > 1 and len(drawn) == FRAMES[0], "others are drawn in their place"


def test_no_more_faces_are_drawn_than_may_be_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "Studio", _Studio)
    monkeypatch.setattr(_Studio, "off", (0.04,) * 15)
    plan = plan_of([track(0, 0, [FRONT, TURNED, FRONT])])
    plan = replace(plan, spares={0: tuple(load_bank().code(n) for n in range(1, 15))})
    for likeness, strange, turns in [
        ([0.2] * 12, [0.1] * 12, 6),  # six are drawn before four were no better than the first
        ([0.2] * 12, [0.1] * 5 + [0.09] + [0.1] * 6, 10),
        ([0.32] * 12, [0.0] * 12, 12),  # one that has to be led away takes longer than to draw on
        ([0.1] * 12, [-0.1] * 12, 2),
    ]:
        # The first turn is number -1 to the stand-in.
        monkeypatch.setattr(_Studio, "likeness", tuple({1: one} for one in likeness[1:] + likeness[:1]))
        monkeypatch.setattr(_Studio, "strange", tuple(strange[1:] + strange[:1]))
        monkeypatch.setattr(_Studio, "turns", ())
        prefer_strangers(Path("a.mp4"), plan, Settings(), ModelStore())
        assert sorted(set(_Studio.turns)) == list(range(turns))


def test_of_faces_that_hide_one_comes_first_that_shows_the_expression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preview, "Studio", _Studio)
    monkeypatch.setattr(_Studio, "likeness", ({1: 0.24}, {1: 0.26}, {1: 0.42}, {1: 0.22}))
    monkeypatch.setattr(_Studio, "strange", (0.0,) * 4)
    monkeypatch.setattr(_Studio, "off", (0.05, 0.022, 0.01, 0.04))
    plan = plan_of([track(0, 0, [FRONT, TURNED, FRONT])])
    plan = replace(plan, spares={0: tuple(load_bank().code(n) for n in (1, 2, 3))})
    better, _ = prefer_strangers(Path("a.mp4"), plan, Settings(), ModelStore())
    names = [code.name for code in (better.identities[0], *better.spares[0])]
    assert names == ["bank-00002", "bank-00000", "bank-00001", "bank-00003"], "but not one that does not hide"


def test_after_a_refusal_the_face_comes_first_that_hides_most_of_what_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = {4: 0.5, 5: 0.5}
    plan = _refused(monkeypatch, [{4: 0.5, 5: 0.2}, {4: 0.3, 5: 0.3}], [0.0, 0.3])
    names = [code.name for code in plan.spares[0]]
    assert names == ["bank-00001", "bank-00000", "bank-00002", "bank-00003"], "then those that were not drawn"
    plan = _refused(monkeypatch, [refused, {4: 0.5, 5: 0.2}], [0.0, 0.0])
    names = [code.name for code in plan.spares[0]]
    assert names == ["bank-00001", "bank-00002", "bank-00003", "bank-00000"], "and last what hides nobody"
    assert all(code.refused == 1 for code in plan.spares[0])
    assert all(code.failed_at == (4, 5) for code in plan.spares[0]), "led away where it failed, too"


def test_the_refused_face_itself_is_tried_without_the_looks_of_the_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = _refused(monkeypatch, [{}, {4: 0.5}, {4: 0.5}, {4: 0.5}], [0.0] * 4)
    assert plan.identities[0].drawn_as == ("bank-00000", 0, 0, ())
    assert plan.spares[0][0].drawn_as == ("bank-00000", 1, 0, (4, 5))
    assert _Studio.turns == (1,), "where it is safe then, no other is"
    hidden = [{4: 0.2}] * 4
    plan = _refused(monkeypatch, hidden, [0.0] * 4, refused=MOST_REFUSED, failed_at=(1, 4))
    assert plan.spares[0][0].drawn_as == ("bank-00000", MOST_REFUSED, 0, (1, 4, 5))
    plan = _refused(monkeypatch, hidden, [0.0] * 4, refused=MOST_REFUSED, failed_at=(4, 5))
    assert len(plan.spares[0]) == 3, "but not once more as it was"


def test_after_a_slight_refusal_the_face_is_first_led_further_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = _refused(monkeypatch, [{4: 0.2}] * 5, [0.0] * 5, slight=(0,))
    assert [code.drawn_as for code in plan.spares[0][:2]] == [
        ("bank-00000", 0, 1, (4, 5)),
        ("bank-00000", 1, 0, (4, 5)),
    ]
    assert plan.spares[0][0].keeps_looks and not plan.spares[0][1].keeps_looks
    assert _Studio.turns == (1,)
    plan = _refused(monkeypatch, [{4: 0.2}] * 5, [0.0] * 5, refused=1, nudged=1, slight=(0,))
    assert [code.drawn_as for code in plan.spares[0][:2]] == [
        ("bank-00000", 1, 2, (4, 5)),
        ("bank-00000", 2, 0, (4, 5)),
    ], "after a larger one as well"
    plan = _refused(monkeypatch, [{4: 0.5, 5: 0.5}, {4: 0.2}], [0.0] * 5, slight=(0,))
    assert plan.spares[0][0].refused == 1, "and only where it hides somebody"
    nudged, *rest = plan.spares[0]
    again = replace(plan, identities={0: nudged}, spares={0: tuple(rest)})
    faces = prefer_where_it_failed(Path("a.mp4"), again, {0: [4, 5]}, Settings(), ModelStore()).spares[0]
    assert len({face.drawn_as for face in faces}) == len(faces), "no face is tried twice as it was"


def test_where_no_face_hides_anybody_the_one_that_fits_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _refused(monkeypatch, [{4: 0.5, 5: 0.4}] * 4, [0.0] * 4)
    assert plan.spares[0] == ()
    assert plan.identities[0].name == "bank-00000"
