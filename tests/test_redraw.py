"""A changed plan is drawn only where it changed, and looks as if it had been drawn as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import analysed, duration_s, make_clip
from hypothesis import given
from hypothesis import strategies as st
from test_audit import code, make_plan, make_track

from vidanon.audit.remedy import covered, obscured
from vidanon.models.registry import ModelStore
from vidanon.redraw import Drawn, changed_frames, redraw
from vidanon.renderer import CONTEXT_FRAMES, render
from vidanon.settings import EncodeSettings, RuntimeSettings, Settings
from vidanon.stages.decode import Decoder
from vidanon.stages.encode import Encoder
from vidanon.stages.keys import key_pictures
from vidanon.types import Plan, Track

SETTINGS = Settings(runtime=RuntimeSettings(workers=2), encode=EncodeSettings(crf=10))
FRAMES, GROUP = 90, 30


@pytest.mark.parametrize("hidden", [obscured, covered])
@given(start=st.integers(0, 60), first=st.integers(0, 60), length=st.integers(1, 20))
def test_what_changes_in_single_frames(
    hidden: Callable[[Track, range], Track], start: int, first: int, length: int
) -> None:
    track = make_track(start=start, count=30)
    before = replace(make_plan(track), frames=FRAMES)
    after = replace(before, tracks=(hidden(track, range(first, first + length)),))
    changed = set(range(max(first, start), min(first + length, start + 30)))
    reach = range(-CONTEXT_FRAMES, CONTEXT_FRAMES + 1)
    assert changed_frames(before, after) == {f + n for f in changed for n in reach} & set(range(FRAMES))
    assert changed_frames(before, before) == set()


def test_what_changes_throughout() -> None:
    plan = replace(make_plan(make_track(count=20), make_track(1, 60, 20, left=90)), frames=FRAMES)
    whole = set(range(20 + CONTEXT_FRAMES))
    other_face = replace(
        plan, identities={**plan.identities, 0: replace(code("x"), vector=-code("x").vector)}
    )
    assert changed_frames(plan, other_face) == whole
    assert changed_frames(plan, replace(plan, tracks=plan.tracks[1:])) == whole
    smaller = replace(plan.tracks[0], crop_from_frame=plan.tracks[0].crop_from_frame * np.float32(0.001))
    assert changed_frames(plan, replace(plan, tracks=(smaller, plan.tracks[1]))) == whole
    uncovered = replace(make_track(7, 40, 2), person=-1)
    assert changed_frames(plan, replace(plan, tracks=(*plan.tracks, uncovered))) == set(
        range(40 - CONTEXT_FRAMES, 42 + CONTEXT_FRAMES)
    )


@pytest.fixture(scope="module")
def long_clip(clip_folder: Path) -> Path:
    return make_clip(clip_folder / "long.mp4", size=(256, 128), pts=range(0, FRAMES * 512, 512))


@pytest.fixture
def short_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results with a key picture every 30 frames; a result of 90 frames would have one."""
    options = Encoder._codec_options
    monkeypatch.setattr(Encoder, "_codec_options", lambda *a: options(*a) | {"g": str(GROUP)})


def packets_of(path: Path, kind: str = "video") -> list[tuple[int, bytes]]:
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [(int(packet.pts), bytes(packet)) for packet in container.demux(stream) if packet.size]


def place(plan: Plan, start: int, count: int, left: float) -> Plan:
    """Obscure one more place."""
    track = replace(make_track(len(plan.tracks), start, count, left=left), person=-1)
    blank = obscured(track, range(start, start + count))
    return replace(plan, tracks=(*plan.tracks, blank))


@pytest.mark.usefixtures("short_groups")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_only_the_changed_group_is_drawn_again(long_clip: Path, tmp_path: Path, suffix: str) -> None:
    models = ModelStore()
    empty = analysed(long_clip, SETTINGS)
    clip = long_clip
    if suffix == ".webm":
        clip = make_clip(
            tmp_path / "opus.mp4", size=(256, 128), pts=range(0, FRAMES * 512, 512), audio_codecs=("libopus",)
        )
        empty = analysed(clip, SETTINGS)
    plan = place(empty, 0, FRAMES, left=30)
    first = tmp_path / f"first{suffix}"
    before = Drawn(first, plan, render(clip, plan, first, SETTINGS, models))
    assert [index for index, _ in key_pictures(first, FRAMES)] == [0, 30, 60]
    changed = place(plan, 40, 8, left=150)
    again, whole, seen = tmp_path / f"again{suffix}", tmp_path / f"whole{suffix}", []
    summary = redraw(
        *(clip, changed, again, SETTINGS, models, lambda *p: seen.append(p)), before=before, folder=tmp_path
    )
    expected = render(clip, changed, whole, SETTINGS, models)
    assert seen[-1] == (30, 30)
    assert (summary.frames, summary.replaced, summary.obscured) == (FRAMES, 0, FRAMES + 8)
    assert summary.obscured_at == expected.obscured_at and summary.notes == expected.notes
    old, new = dict(packets_of(first)), dict(packets_of(again))
    stamps = sorted(old)
    assert sorted(new) == stamps
    differ = {place for place, stamp in enumerate(stamps) if old[stamp] != new[stamp]}
    assert set(range(40, 60)) <= differ <= set(range(30, 60)), "what lies before and after is copied"
    assert packets_of(again, "audio") == packets_of(first, "audio")
    assert duration_s(again) == duration_s(whole)
    with Decoder(again) as video, Decoder(whole) as other:
        for one, two in zip(video, other, strict=True):
            assert one.pts == two.pts
            assert np.abs(one.image.astype(int) - two.image).mean() < 1.5


@pytest.mark.usefixtures("short_groups")
def test_where_everything_changes_all_is_drawn(long_clip: Path, tmp_path: Path) -> None:
    models = ModelStore()
    empty = analysed(long_clip, SETTINGS)
    first, again = tmp_path / "first.mp4", tmp_path / "again.mp4"
    before = Drawn(first, empty, render(long_clip, empty, first, SETTINGS, models))
    summary = redraw(
        *(long_clip, place(empty, 0, FRAMES, left=30), again, SETTINGS, models),
        before=before,
        folder=tmp_path,
    )
    assert summary.frames == summary.obscured == FRAMES
