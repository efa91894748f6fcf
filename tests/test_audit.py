"""What the audit does with what it finds: another face, the mask, a report, a refusal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.audit import loop
from vidanon.audit.plots import Curve, curve_svg
from vidanon.audit.record import UNCOVERED, Audit, Check, Sample, Span, TrackAudit, clock
from vidanon.audit.rehearsal import Rehearsal
from vidanon.audit.remedy import bared, obscured, remedy
from vidanon.audit.report import report_record, write_report
from vidanon.audit.sampling import closer_frames, nearness_of, reach_of, sampled_frames
from vidanon.audit.stability import flicker
from vidanon.calibrate import calibrate, operating_points
from vidanon.errors import InputError, OutputError
from vidanon.identity.embed import SFACE_SAME_PERSON
from vidanon.measures import MASK_DETAIL, UNCHANGED_LEVELS, detail_left, is_same_picture, is_unchanged
from vidanon.models.registry import ModelStore
from vidanon.models.thresholds import calibration
from vidanon.recognisers import DLIB, RECOGNISERS, recognised_by
from vidanon.redraw import Drawn
from vidanon.rendersummary import RenderSummary
from vidanon.settings import Settings, load_settings
from vidanon.stages.obscure import obscure
from vidanon.tally import FacePair, FaceReading
from vidanon.types import Float, IdentityCode, Plan, Track, VideoInfo

FRAMES = 40
SCHEMA = json.loads(
    (Path(__file__).parents[1] / "vidanon" / "audit" / "report.schema.json").read_text("utf-8")
)


def code(name: str) -> IdentityCode:
    return IdentityCode(name, np.eye(1, 128, dtype=np.float32)[0])


def make_track(number: int = 0, start: int = 0, count: int = FRAMES, left: float = 10) -> Track:
    return Track(
        id=number,
        person=number,
        start=start,
        boxes=np.tile(np.array([left, 10, left + 40, 60], np.float32), (count, 1)),
        scores=np.ones(count, np.float32),
        origin=np.zeros(count, np.uint8),
        landmarks=np.ones((count, 478, 2), np.float32),
        blendshapes=np.zeros((count, 52), np.float32),
        crop_from_frame=np.ones((count, 2, 3), np.float32),
    )


def make_plan(*tracks: Track, spares: int = 2) -> Plan:
    people = sorted({track.person for track in tracks})
    return Plan(
        info=VideoInfo(Path("x.mp4"), 200, 100, Fraction(1, 25), Fraction(25), FRAMES, 0, "h264", 8, 0),
        frames=FRAMES,
        cuts=(),
        tracks=tracks,
        identities={person: code(f"first {person}") for person in people},
        spares={person: tuple(code(f"spare {n} {person}") for n in range(spares)) for person in people},
    )


def scores_of(same: bool) -> dict[str, float]:
    return {"SFace": 0.6 if same else 0.1, "EdgeFace": 0.0, "dlib": 0.8}


def make_audit(
    failing: dict[int, list[int]] | None = None,
    leaks: dict[int, list[Float]] | None = None,
    judged: range = range(0, FRAMES, 2),
) -> Audit:
    """An audit of one or more tracks; ``failing`` lists the frames in which each is recognised."""
    failing, leaks = failing or {0: []}, leaks or {}
    tracks = []
    for number, frames in failing.items():
        samples = tuple(
            Sample(f, f / 25, scores_of(f in frames), True, ("SFace",) if f in frames else ()) for f in judged
        )
        tracks.append(
            TrackAudit(number, number, 0.0, 1.56, FRAMES, 3, samples, {"blink": 0.9, "smile": None})
        )
    seen = [frames for frames in failing.values() if frames]
    return Audit(
        source=Path("holiday <b>.mp4"),
        output=Path("out.mp4"),
        checks=(
            Check("frames", True, "40 of 40 frames"),
            Check("times", True, "every frame at its time"),
            Check("audio", True, "the same packets"),
            Check("coverage", not leaks, "an original face is left" if leaks else "none left"),
            Check(
                "identity (SFace)", not seen, "still recognisable: track 0 at 0:00.4" if seen else "nobody"
            ),
        ),
        tracks=tuple(tracks),
        leaks=leaks,
        times_s=[frame / 25 for frame in range(FRAMES)],
        totals={"blink": 0.9, "smile": None},
        container={"frames": ("40", "40")},
        recognisers=("SFace", "EdgeFace", "dlib"),
        spans=(Span(0, 0.0, 1.0, "replaced"), Span(0, 1.0, 1.56, "obscured")),
    )


def hidden_frames(track: Track) -> set[int]:
    return {track.start + int(i) for i in np.flatnonzero(np.isnan(track.crop_from_frame).all(axis=(1, 2)))}


def test_a_recognised_person_gets_the_next_face_and_nobody_else_does() -> None:
    plan = make_plan(make_track(0), make_track(1, left=100))
    better = remedy(plan, make_audit({0: [10], 1: []}), obscure_only=False)
    assert better is not None
    assert better.identities[0].name == "spare 0 0" and better.identities[1].name == "first 1"
    assert [spare.name for spare in better.spares[0]] == ["spare 1 0"]
    assert not hidden_frames(better.tracks[0])


def test_without_a_further_face_the_failing_moments_are_obscured_up_to_the_passing_ones() -> None:
    plan = make_plan(make_track(), spares=0)
    better = remedy(plan, make_audit({0: [10, 12]}), obscure_only=False)
    assert better is not None
    assert hidden_frames(better.tracks[0]) == set(range(5, 18)), "and five frames on both sides"
    worse = remedy(better, make_audit({0: [10]}), obscure_only=False)
    assert worse is not None, "what was obscured and is still recognised is obscured as a whole"
    assert hidden_frames(worse.tracks[0]) == set(range(FRAMES))
    assert remedy(worse, make_audit({0: [10]}), obscure_only=False) is None


def test_what_lies_on_the_line_but_for_coding_noise_is_obscured_at_once() -> None:
    found = make_audit({0: [10]})
    near = scores_of(same=False) | {"EdgeFace": RECOGNISERS[1].same_person - 0.003}
    samples = [replace(x, scores=near) if x.frame == 30 else x for x in found.tracks[0].samples]
    found = replace(found, tracks=(replace(found.tracks[0], samples=tuple(samples)),))
    better = remedy(make_plan(make_track(), spares=0), found, obscure_only=False)
    assert better is not None
    assert hidden_frames(better.tracks[0]) == {*range(5, 36)}, "and what would flash between"


@pytest.mark.parametrize(("rate", "flashes"), [(25, True), (10, False)])
def test_a_face_does_not_flash_between_two_masks(rate: int, flashes: bool) -> None:
    plan = make_plan(make_track(), spares=0)
    plan = replace(plan, info=replace(plan.info, average_rate=Fraction(rate)))
    better = remedy(plan, make_audit({0: [10, 26]}), obscure_only=True)
    assert better is not None
    assert (hidden_frames(better.tracks[0]) == {*range(5, 32)}) == flashes, "where it shows for five frames"


def test_a_track_that_mostly_fails_is_obscured_as_a_whole() -> None:
    better = remedy(make_plan(make_track()), make_audit({0: list(range(0, 30, 2))}), obscure_only=True)
    assert better is not None and hidden_frames(better.tracks[0]) == set(range(FRAMES))


def test_a_face_that_no_track_covers_is_obscured_with_a_margin() -> None:
    box = np.array([120, 20, 160, 70], np.float32)
    leaks = {frame: [box + frame] for frame in (20, 21, 23)}
    better = remedy(make_plan(make_track()), make_audit(leaks=leaks), obscure_only=False)
    assert better is not None
    old, new = better.tracks
    assert not hidden_frames(old)
    assert (new.id, new.person, new.start, new.end) == (1, UNCOVERED, 15, 29)
    assert hidden_frames(new) == set(range(15, 29))
    np.testing.assert_allclose(new.boxes[22 - 15], box + 22)


def test_a_track_whose_face_is_left_is_obscured_and_nobody_can_do_more() -> None:
    leaks = {5: [np.array([10, 10, 50, 60], np.float32)]}
    better = remedy(make_plan(make_track()), make_audit(leaks=leaks), obscure_only=False)
    assert better is not None and hidden_frames(better.tracks[0]) == set(range(11))
    again = remedy(better, make_audit(leaks=leaks), obscure_only=False)
    assert again is not None and hidden_frames(again.tracks[1]) == set(range(11)), "it gets a box of its own"
    assert remedy(again, make_audit(leaks=leaks), obscure_only=False) is None


def test_a_mask_ends_with_the_shot() -> None:
    """Else a face in one photograph of a folder covers its neighbours as well."""
    plan = replace(make_plan(make_track(count=20)), cuts=(20, 22))
    shown = {20: [np.array([120, 20, 160, 70], np.float32)], 19: [np.array([10, 10, 50, 60], np.float32)]}
    better = remedy(plan, make_audit(leaks=shown), obscure_only=False)
    assert better is not None
    assert (better.tracks[1].start, better.tracks[1].end) == (20, 22)
    assert hidden_frames(better.tracks[0]) == set(range(14, 20))


def test_a_face_recognised_beside_an_obscured_track_gets_a_mask_of_its_own() -> None:
    plan = make_plan(replace(make_track(), crop_from_frame=np.full((FRAMES, 2, 3), np.nan, "f4")))
    found = replace(make_audit({0: [10]}), beside={10: [np.array([40, 10, 80, 60], np.float32)]})
    better = remedy(plan, found, obscure_only=True)
    assert better is not None
    assert (better.tracks[1].start, better.tracks[1].end) == (5, 16)


def test_in_the_end_the_best_of_the_faces_tried_stays() -> None:
    first = make_plan(make_track(), spares=1)
    found = make_audit({0: [10]})
    second = remedy(first, found, obscure_only=False)
    assert second is not None and second.identities[0].name == "spare 0 0"
    worse = make_audit({0: list(range(0, FRAMES, 3))})
    third = remedy(second, worse, obscure_only=True, earlier=[(first, found)])
    assert third is not None and third.identities[0].name == "first 0"
    assert hidden_frames(third.tracks[0]) == set(range(5, 16))


@given(
    start=st.integers(0, 50), count=st.integers(1, 60), first=st.integers(0, 120), length=st.integers(0, 60)
)
def test_obscuring_touches_the_frames_asked_for_only(start: int, count: int, first: int, length: int) -> None:
    track = make_track(start=start, count=count)
    frames = range(first, first + length)
    assert hidden_frames(obscured(track, frames)) == set(frames) & set(range(track.start, track.end))
    assert not hidden_frames(track)


@given(start=st.integers(0, 100), count=st.integers(1, 300), samples=st.integers(2, 40))
def test_samples_are_bounded_and_hold_both_ends(start: int, count: int, samples: int) -> None:
    track = make_track(start=start, count=count)
    frames = sampled_frames(track, samples)
    assert len(frames) <= samples + samples // 3 + 1
    assert {track.start, track.end - 1} <= frames
    assert len(frames) == 1 or any(frame + 1 in frames for frame in frames), "flicker needs two in a row"


@given(start=st.integers(0, 100), count=st.integers(480, 20_000), samples=st.integers(8, 40))
def test_a_long_track_is_looked_at_no_less_closely_than_a_short_one(
    start: int, count: int, samples: int
) -> None:
    frames = sorted(sampled_frames(make_track(start=start, count=count), samples))
    assert max(np.diff(frames)) <= np.ceil(480 / (samples - 1))
    assert len(frames) <= 1.5 * count * samples / 480 + 2, "and not more closely either"


@given(count=st.integers(10, 200), start=st.integers(0, 190), length=st.integers(1, 10))
def test_a_face_that_shows_between_two_masks_is_judged_however_short(
    count: int, start: int, length: int
) -> None:
    track = make_track(start=7, count=count)
    first = 7 + min(start, count - length)
    shown = range(first, first + length)
    frames = sampled_frames(track, 32, set(range(7, 7 + count)) - set(shown))
    assert {shown[0], shown[-1]} <= frames or len(frames.intersection(shown)) >= 4


def test_where_a_face_comes_near_the_line_the_frames_around_are_judged_too() -> None:
    nearness = {0: -2.0, 10: 0.2, 20: -1.0, 30: -3.0, 40: 0.9, 41: -1.0}
    around = [*range(1, 10), *range(11, 20), *range(31, 40)]
    assert closer_frames(nearness, budget=40) == around
    assert closer_frames(nearness, budget=5) == [31, 32, 33, 34, 35], "first beside the nearest"
    assert closer_frames({0: -1.0, 50: -0.1}, budget=40) == []


def judged_pair(frame: int, sface: float, dlib: float) -> FacePair:
    nothing = np.zeros(4, np.float32)
    seen = FaceReading(nothing, np.zeros((478, 2), np.float32), nothing, nothing, {}, 0.0)
    return FacePair(frame, 0, {"SFace": sface, "EdgeFace": 0.0, "dlib": dlib}, 0.0, 0.0, seen, seen, 1.0)


def test_where_likeness_jumps_from_frame_to_frame_less_near_is_near() -> None:
    steady = [judged_pair(frame, 0.2, 0.7) for frame in (0, 1, 10, 11, 20, 21, 30, 31)]
    jumping = [judged_pair(frame, 0.2 - 0.1 * (frame % 2), 0.7) for frame in (0, 1, 10, 11, 20, 21, 30, 31)]
    apart = [judged_pair(frame, 0.2 - 0.01 * frame, 0.7) for frame in (0, 10, 20, 30)]
    assert nearness_of(steady[0], reach_of(steady)) < 0
    assert nearness_of(steady[0], reach_of(jumping)) > 0
    assert nearness_of(steady[0], reach_of(apart)) < 0, "frames far apart may differ as they like"
    assert nearness_of(steady[0], reach_of([])) < 0
    assert reach_of(jumping)[DLIB] == reach_of(steady)[DLIB], "each recogniser by itself"


class _Studio:
    """Stands in for renderer and audit: the result passes once the faces in ``safe`` are used."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        safe: str,
        hands: Sequence[int] = (10,),
        failing: Sequence[int] = (10,),
    ) -> None:
        self.drawn: list[Plan] = []
        self.slight: list[set[int]] = []
        self._failing = list(failing)
        self._safe, self._hands = safe, list(hands)
        self.kept: list[Plan] = []
        monkeypatch.setattr("vidanon.renderer.render", self.render)
        monkeypatch.setattr("vidanon.redraw.redraw", self.redraw)
        monkeypatch.setattr(loop, "audit", self.audit)
        monkeypatch.setattr(loop, "prefer_where_it_failed", self.prefer)
        self.rehearsed: list[Plan] = []
        self.suspects: list[dict[int, Any]] = []

    def rehearse(self, source: Path, plan: Plan, *_: Any) -> Rehearsal:
        self.rehearsed.append(plan)
        fine = plan.identities[0].name == self._safe
        found = make_audit({0: [] if fine else self._failing}, judged=range(0, FRAMES, 10))
        return Rehearsal(plan, found.tracks, RenderSummary(kept_at={0: self._hands}))

    def prefer(self, source: Path, plan: Plan, frames: dict[int, list[int]], *rest: Any) -> Plan:
        assert frames == {0: self._failing}
        self.slight.append(rest[-1])
        return plan

    def redraw(self, *drawn: Any, before: Drawn, folder: Path) -> Any:
        assert before.path.parent == folder and before.path.read_text() == before.plan.identities[0].name
        self.kept.append(before.plan)
        return self.render(*drawn)

    def render(self, source: Path, plan: Plan, target: Path, *_: Any) -> Any:
        self.drawn.append(plan)
        target.write_text(plan.identities[0].name)
        kept_at = {0: self._hands} if plan.tracks[0].covered is None else {}
        return SimpleNamespace(seconds={"generate": 1.0}, obscured_at={}, kept_at=kept_at, notes=())

    def audit(self, *given: Any) -> Audit:
        plan = self.drawn[-1]
        self.suspects.append(dict(given[-1].suspects))
        fine = plan.identities[0].name == self._safe or hidden_frames(plan.tracks[0])
        return make_audit() if fine else make_audit({0: self._failing})


@pytest.mark.parametrize(
    ("safe", "rounds", "drawn", "passed"),
    [
        ("first 0", 3, 1, True),
        ("spare 0 0", 4, 3, True),
        ("spare 1 0", 5, 4, True),
        ("nobody", 3, 3, True),
        ("nobody", 1, 2, True),
        ("nobody", 0, 1, False),
    ],
)
def test_the_loop_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, safe: str, rounds: int, drawn: int, passed: bool
) -> None:
    studio = _Studio(monkeypatch, safe)
    settings = load_settings(None, [f"audit.rounds={rounds}"])
    plan = make_plan(make_track())
    target = tmp_path / "b.mp4"
    result = loop.render_until_safe(Path("a"), plan, target, settings, ModelStore())
    assert result.audit is not None and result.audit.passed is passed
    assert len(studio.drawn) == result.rounds == drawn
    assert studio.kept == studio.drawn[:-1], "every further result is made from the one before"
    assert list(tmp_path.iterdir()) == [target]
    assert result.seconds["generate"] == drawn
    assert bool(hidden_frames(result.plan.tracks[0])) is (safe == "nobody" and passed)


@pytest.mark.parametrize(("failing", "slight"), [([10], {0}), ([10, 12, 14, 16], set())])
def test_who_is_recognised_in_few_frames_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: list[int], slight: set[int]
) -> None:
    studio = _Studio(monkeypatch, "spare 0 0", hands=(), failing=failing)
    settings = load_settings(None, ["audit.rounds=3"])
    loop.render_until_safe(Path("a"), make_plan(make_track()), tmp_path / "b.mp4", settings, ModelStore())
    assert studio.slight == [slight]


def test_a_face_is_led_further_as_it_is_while_that_helps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    studio = _Studio(monkeypatch, "nobody", hands=())
    found = iter([[10, 12, 14], [10], [10], [10], [10], []])
    slight: list[set[int]] = []

    def prefer(source: Path, plan: Plan, frames: dict[int, list[int]], *rest: Any) -> Plan:
        slight.append(rest[-1])
        face = plan.identities[0]
        more = {"nudged": face.nudged + 1} if rest[-1] else {"nudged": 0, "refused": face.refused + 1}
        return replace(plan, spares={0: (replace(face, **more), *plan.spares[0])})

    monkeypatch.setattr(loop, "prefer_where_it_failed", prefer)
    monkeypatch.setattr(loop, "audit", lambda *_: make_audit({0: next(found)}))
    settings = load_settings(None, ["audit.rounds=6"])
    loop.render_until_safe(Path("a"), make_plan(make_track()), tmp_path / "b.mp4", settings, ModelStore())
    assert slight == [{0}, {0}, set(), {0}]
    tried = [(plan.identities[0].refused, plan.identities[0].nudged) for plan in studio.drawn]
    assert tried[:5] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("safe", "rehearsed", "drawn"),
    [("first 0", 1, 1), ("spare 0 0", 2, 1), ("spare 1 0", 3, 1), ("nobody", 3, 2)],
)
def test_a_face_that_fails_in_some_frames_is_not_drawn_in_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, safe: str, rehearsed: int, drawn: int
) -> None:
    studio = _Studio(monkeypatch, safe, hands=())
    monkeypatch.setattr(loop, "rehearse", studio.rehearse)
    target = tmp_path / "b.mp4"
    result = loop.render_until_safe(Path("a"), make_plan(make_track()), target, Settings(), ModelStore())
    assert result.audit is not None and result.audit.passed
    assert len(studio.rehearsed) == rehearsed
    assert len(studio.drawn) == result.rounds == drawn, "where nobody is safe, drawn with masks in the end"
    assert studio.drawn[0].identities[0].name == ("spare 1 0" if safe == "nobody" else safe)
    assert studio.suspects[0] == ({} if safe == "first 0" else {0: None}), "then all of it is looked at"


def test_who_is_recognised_behind_hands_only_is_left_to_the_audit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    studio = _Studio(monkeypatch, "nobody", hands=[10])
    monkeypatch.setattr(loop, "rehearse", studio.rehearse)
    target = tmp_path / "b.mp4"
    loop.render_until_safe(Path("a"), make_plan(make_track()), target, Settings(), ModelStore())
    assert studio.drawn[0].identities[0].name == "first 0"
    assert studio.drawn[1].tracks[0].covered is not None, "the audit knows where else"


def test_hands_are_covered_before_a_face_is_obscured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    studio = _Studio(monkeypatch, "nobody")
    settings = load_settings(None, ["audit.rounds=3"])
    target = tmp_path / "b.mp4"
    loop.render_until_safe(Path("a"), make_plan(make_track()), target, settings, ModelStore())
    _, covered, obscured = (plan.tracks[0] for plan in studio.drawn)
    assert covered.covered is not None
    assert covered.covered[10] and not covered.covered.all() and not hidden_frames(covered)
    assert 10 in hidden_frames(obscured)


def test_only_where_hands_are_before_the_face_they_are_covered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    studio = _Studio(monkeypatch, "nobody", hands=[11])
    settings = load_settings(None, ["audit.rounds=3"])
    loop.render_until_safe(Path("a"), make_plan(make_track()), tmp_path / "b.mp4", settings, ModelStore())
    assert all(plan.tracks[0].covered is None for plan in studio.drawn)
    plan = make_plan(make_track())
    assert bared(plan, make_audit({0: [10, 12]}).tracks, {0: [10, 11]}) == {}, "nothing is before 12"
    found = make_audit({0: [10]})
    samples = [
        replace(x, scores={**x.scores, "dlib": 0.57}) if x.frame == 30 else x for x in found.tracks[0].samples
    ]
    found = replace(found, tracks=(replace(found.tracks[0], samples=tuple(samples)),))
    (better,) = bared(plan, found.tracks, {0: [10]}).values()
    assert better.covered is not None
    assert better.covered[[10, 30]].all(), "so near the line it may fail between two samples"
    assert better.covered[20], "the hand would only flash"
    assert not better.covered[[0, 39]].any()
    apart = [replace(sample, apart=True) for sample in samples]
    found = replace(found, tracks=(replace(found.tracks[0], samples=tuple(apart)),))
    assert bared(plan, found.tracks, {0: [10]}) == {}, "it is not the hand"
    assert bared(plan, found.tracks, {0: [10]}, changed=True).keys() == {0}, "but another face was no better"


@pytest.mark.parametrize(
    ("failing", "looked_at"),
    [([[10], [30], []], [{10, 30}, {30}]), ([[10], [20], []], [{10, 30}, None])],
    ids=["again behind a hand", "then behind nothing"],
)
def test_who_was_only_recognised_behind_hands_is_looked_at_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    failing: list[list[int]],
    looked_at: list[set[int] | None],
) -> None:
    studio, found = _Studio(monkeypatch, "nobody"), iter(failing)
    suspects: list[dict[int, set[int] | None]] = []

    def redrawn(*drawn: Any, **_: Any) -> Any:
        summary, covered = studio.render(*drawn), studio.drawn[-1].tracks[0].covered
        summary.kept_at = {0: [frame for frame in (10, 30) if covered is None or not covered[frame]]}
        return summary

    def audited(*arguments: Any) -> Audit:
        suspects.append(dict(arguments[-1].suspects))
        arguments[-1].suspects.setdefault(0, None)  # as the real one does with whom it recognises
        return make_audit({0: next(found)})

    monkeypatch.setattr("vidanon.renderer.render", redrawn)
    monkeypatch.setattr("vidanon.redraw.redraw", redrawn)
    monkeypatch.setattr(loop, "audit", audited)
    monkeypatch.setattr(loop, "prefer_where_it_failed", lambda _, plan, *rest: plan)
    settings = load_settings(None, ["audit.rounds=4"])
    loop.render_until_safe(Path("a"), make_plan(make_track()), tmp_path / "b.mp4", settings, ModelStore())
    assert suspects == [{}, *({0: frames} for frames in looked_at)]


def test_the_audit_can_be_turned_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _Studio(monkeypatch, "nobody")
    settings = load_settings(None, ["audit.enabled=false"])
    plan = make_plan(make_track())
    result = loop.render_until_safe(Path("a"), plan, tmp_path / "b.mp4", settings, ModelStore())
    assert result.audit is None and result.rounds == 1


@pytest.mark.parametrize("failing", [{0: []}, {0: [4, 6], UNCOVERED: [8]}])
def test_json_follows_its_schema(failing: dict[int, list[int]]) -> None:
    audit = make_audit(failing, {3: [np.zeros(4, np.float32)]} if failing[0] else {})
    record = report_record(audit, Settings(), {"people": 1}, {0: 0.25})
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(record, SCHEMA, jsonschema.Draft202012Validator)
    json.dumps(record, allow_nan=False)


def test_report_needs_no_network_and_keeps_the_key_file_to_itself(tmp_path: Path) -> None:
    settings = load_settings(
        None, ["identity.key_file=/home/me/secret.key", "select.keep_person=/home/me/secret.key"]
    )
    page = tmp_path / "r.html"
    beside = write_report(page, replace(make_audit(), thumbnails={0: b"\xff\xd8jpeg"}), settings)
    text = page.read_text("utf-8") + beside.read_text("utf-8")
    for word in ("http:", "https:", "<script", '<link rel="stylesheet', "@import", "url(", "secret.key"):
        assert word not in text, word
    assert "holiday &lt;b&gt;.mp4" in text
    assert text.count("<img ") == 1


def test_report_says_what_failed_and_where(tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    write_report(page, make_audit({0: [10]}))
    text = page.read_text("utf-8")
    assert "NOT SAFE" in text and "still recognisable: track 0 at 0:00.4" in text
    assert text.count('class="bad"') == 1
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "nowhere" / "r.html", make_audit())


@given(
    st.lists(st.tuples(st.floats(0, 9), st.floats(-1, 2), st.booleans()), max_size=20),
    st.floats(0, 5),
    st.floats(0, 9),
)
def test_a_plot_stays_inside_its_frame(
    points: list[tuple[float, float, bool]], start_s: float, length_s: float
) -> None:
    points = [(min(max(t, start_s), start_s + length_s), value, bad) for t, value, bad in points]
    svg = curve_svg(Curve("a & b", points, 0.37, 0, 1, "below"), start_s, start_s + length_s)
    assert "a &amp; b" in svg and "nan" not in svg
    assert svg.count("<circle") == len(points)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00.0"), (62.44, "1:02.4"), (59.96, "1:00.0")])
def test_times_are_written_as_a_player_shows_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_flicker_is_what_motion_does_not_explain() -> None:
    rows, columns = np.mgrid[0:120, 0:120]
    still = (127 + 60 * np.sin(rows / 7) * np.cos(columns / 9)).astype(np.uint8)
    image = np.stack([still] * 3, axis=2)
    box = np.array([20, 20, 100, 100], np.float32)
    moved = np.roll(image, 2, axis=1)
    brighter = (image + 20).astype(np.uint8)
    assert flicker(image, image, box) < 0.5
    assert flicker(image, moved, box) < 2.5
    assert flicker(image, brighter, box) > 10


def test_thresholds_are_those_of_the_calibration_that_ships() -> None:
    record = calibration()
    points = record["recognisers"]
    assert points["sface"]["far_1e-3"]["threshold"] == SFACE_SAME_PERSON
    assert record["different_pairs"] > 100_000 and record["same_pairs"] > 1000
    for recogniser in RECOGNISERS:
        assert points[recogniser.key]["far_1e-3"]["threshold"] == recogniser.same_person
        stricter = points[recogniser.key]["far_1e-4"]["threshold"]
        assert recogniser.margin(stricter) < 0 and recogniser.is_same(stricter)


def test_any_recogniser_alone_can_recognise_somebody() -> None:
    strangers = scores_of(same=False)
    assert recognised_by(strangers) == ()
    for recogniser in RECOGNISERS:
        same = 0.1 if recogniser.by_distance else 0.9
        assert recognised_by(strangers | {recogniser.name: same}) == (recogniser.name,)
    assert recognised_by({"SFace": 0.1}) == (), "who did not judge recognises nobody"
    assert not DLIB.is_same(float("nan"))


@given(seed=st.integers(0, 99), nearer=st.booleans())
def test_no_more_strangers_than_stated_lie_beyond_a_threshold(seed: int, nearer: bool) -> None:
    random = np.random.default_rng(seed)
    same = np.arange(12_000) < 500
    scores = np.where(same, random.normal(2, 1, 12_000), random.normal(-2, 1, 12_000)).round(6)
    points = operating_points(-scores if nearer else scores, same, nearer)
    for name, rate in (("far_1e-3", 1e-3), ("far_1e-4", 1e-4)):
        threshold = points[name]["threshold"] * (-1 if nearer else 1)
        assert (scores[~same] > threshold + 1e-4).mean() <= rate
        assert points[name]["tpr"] == pytest.approx((scores[same] > threshold).mean(), abs=0.01)


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        calibrate(tmp_path / "nowhere", ModelStore())
    with pytest.raises(InputError, match="too few"):
        calibrate(tmp_path, ModelStore())


def test_a_dark_face_under_the_mask_counts_as_changed_and_coding_noise_does_not() -> None:
    random = np.random.default_rng(4)
    grey = random.normal(14, 4, (80, 80, 1)).clip(0, 255).round()
    face = np.repeat(grey, 3, axis=2).astype(np.uint8)
    box = np.array([15, 15, 65, 65], np.float32)
    coded = (face + random.choice([-1, 0, 1], face.shape)).clip(0, 255).astype(np.uint8)
    masked = face.copy()
    obscure(masked, box)
    assert is_unchanged(face, coded, box)
    assert not is_unchanged(face, masked, box)
    assert is_same_picture(face, face, box)
    assert not is_same_picture(face, masked, box)


@pytest.mark.parametrize("levels", [20, 200])
def test_a_face_that_was_coded_strongly_is_still_the_same_face(levels: int) -> None:
    random = np.random.default_rng(6)
    features = (random.uniform(20, 20 + levels, (20, 20, 3))).astype(np.uint8)
    face = cv2.resize(features, (160, 160), interpolation=cv2.INTER_CUBIC)
    _, coded = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 40])
    box = np.array([30, 30, 130, 130], np.float32)
    other = face.copy()
    other[30:130, 30:130] = cv2.resize(features[::-1, ::-1], (100, 100))
    again = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert is_unchanged(face, again, box) and not is_unchanged(face, other, box)
    assert is_same_picture(face, face, box) and not is_same_picture(face, other, box)


def test_another_soft_face_in_the_same_light_is_not_the_same_face() -> None:
    random = np.random.default_rng(8)
    shared, own, new = (
        cv2.resize(random.normal(0, 11, (9, 9)), (90, 90), interpolation=cv2.INTER_CUBIC) for _ in range(3)
    )
    grey = [(120 + 0.8 * shared + 0.6 * features).clip(0, 255) for features in (own, new)]
    face, other = (np.repeat(picture[..., None], 3, axis=2).astype(np.uint8) for picture in grey)
    box = np.array([10, 10, 80, 80], np.float32)
    assert np.abs(face[20:71, 20:71].astype(int) - other[20:71, 20:71]).mean() < UNCHANGED_LEVELS
    _, coded = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert is_unchanged(face, cv2.imdecode(coded, cv2.IMREAD_COLOR), box)
    assert not is_unchanged(face, other, box)


@pytest.mark.parametrize("blur", [0.0, 0.1, 0.2, 0.3])
def test_a_face_out_of_focus_is_not_unchanged_under_the_mask(blur: float) -> None:
    random = np.random.default_rng(7)
    face = cv2.resize(random.integers(60, 200, (6, 6, 3)).astype(np.uint8), (80, 80))
    face = cv2.GaussianBlur(face, (0, 0), 40 * blur) if blur else face
    box = np.array([20, 20, 60, 60], np.float32)
    masked = face.copy()
    obscure(masked, box)
    assert is_unchanged(face, face, box) and not is_unchanged(face, masked, box)


@pytest.mark.parametrize("side", [24, 80, 300])
def test_the_mask_leaves_less_detail_than_a_mild_blur(side: int) -> None:
    random = np.random.default_rng(5)
    features = cv2.resize(random.integers(0, 255, (12, 12, 3)).astype(np.uint8), (side, side))
    face = np.full((2 * side, 2 * side, 3), 128, np.uint8)
    low = side // 2
    face[low : low + side, low : low + side] = features
    landmarks = (random.uniform(0, 1, (478, 2)) * side + low).astype(np.float32)
    masked = face.copy()
    obscure(masked, np.array([low, low, low + side, low + side], np.float32))
    blurred = cv2.GaussianBlur(face, (0, 0), 0.04 * side)
    assert detail_left(face, face, landmarks) == pytest.approx(1)
    assert detail_left(face, masked, landmarks) < MASK_DETAIL < detail_left(face, blurred, landmarks)
