"""Videos in parts: where they are cut, that the joints do not show, that finished parts are kept."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from conftest import analysed, duration_s, make_clip
from hypothesis import given
from hypothesis import strategies as st

from vidanon.jobs import parts
from vidanon.jobs.executors import make_executor
from vidanon.jobs.parts import boundaries, render_in_parts
from vidanon.models.registry import ModelStore
from vidanon.renderer import render
from vidanon.settings import RuntimeSettings, Settings
from vidanon.stages.decode import Decoder, probe
from vidanon.stages.encode import Encoder
from vidanon.stages.join import Joiner, Piece
from vidanon.stages.keys import key_pictures
from vidanon.types import Frame, Plan

SETTINGS = Settings(runtime=RuntimeSettings(workers=2))


def frames_of(path: Path) -> list[Frame]:
    with Decoder(path) as video:
        return list(video)


@given(st.integers(1, 3000), st.sets(st.integers(1, 2999)), st.sampled_from([20, 250]))
def test_parts_cover_the_video_and_have_a_sensible_length(frames: int, cuts: set[int], length: int) -> None:
    spans = boundaries(frames, sorted(cut for cut in cuts if cut < frames), length)
    assert [index for span in spans for index in span] == list(range(frames))
    if len(spans) > 1:
        assert all(length // 2 <= len(span) <= length + length // 2 for span in spans)


def test_a_near_shot_cut_is_taken() -> None:
    assert (
        boundaries(600, [40, 240, 330])
        == [range(240), range(240, 600)][:1] + boundaries(600, [40, 240, 330])[1:]
    )
    assert boundaries(400, [390], 200) == [range(200), range(200, 400)]


@pytest.mark.parametrize("name", ["plain_clip", "vfr_clip", "rotated_clip", "ten_bit_clip", "two_audio_clip"])
def test_reading_from_the_middle_gives_the_same_pictures(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    everything = frames_of(path)
    starts = key_pictures(path, len(everything))
    assert starts[0] == (0, everything[0].pts)
    for start in [None, *starts]:
        with Decoder(path) as video:
            part = list(video.part(range(20, 25), start))
        assert [frame.index for frame in part] == list(range(20, 25))
        for one, other in zip(part, everything[20:25], strict=True):
            assert one.pts == other.pts
            np.testing.assert_array_equal(one.image, other.image)


def test_many_key_pictures(tmp_path: Path) -> None:
    def short_groups(video) -> None:  # type: ignore[no-untyped-def]
        video.codec_context.gop_size = 8

    path = make_clip(tmp_path / "gop.mp4", setup=short_groups)
    everything = frames_of(path)
    starts = key_pictures(path, 30)
    assert len(starts) >= 4 and starts[-1][0] >= 16
    for index, pts in starts:
        with Decoder(path) as video:
            part = list(video.part(range(index, 30), (index, pts)))
        assert [frame.pts for frame in part] == [frame.pts for frame in everything[index:]]
        for one, other in zip(part, everything[index:], strict=True):
            np.testing.assert_array_equal(one.image, other.image)


def test_another_number_of_packets_means_no_seeking(plain_clip: Path) -> None:
    assert key_pictures(plain_clip, 31) == []


@pytest.mark.parametrize("name", ["plain_clip", "vfr_clip", "silent_vfr_clip", "two_audio_clip", "odd_clip"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_joined_parts_are_as_good_as_one_piece(
    name: str, suffix: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(name)
    info, frames = probe(source), frames_of(source)
    whole, joined = tmp_path / f"whole{suffix}", tmp_path / f"joined{suffix}"
    with Encoder(source, info, whole, SETTINGS.encode) as encoder:
        for frame in frames:
            encoder.write(frame)
    pieces = []
    for number, span in enumerate([range(11), range(11, 12), range(12, 30)]):
        pieces.append(tmp_path / f"{number}.mp4")
        with Encoder(source, info, pieces[-1], SETTINGS.encode, copies=False) as encoder:
            for frame in frames[span.start : span.stop]:
                encoder.write(frame)
    joiner = Joiner(source, info, joined, SETTINGS.encode, [Piece(path) for path in pieces])
    with joiner:
        joiner.join()
    one, other = frames_of(whole), frames_of(joined)
    assert [frame.pts for frame in one] == [frame.pts for frame in other]
    for original, a, b in zip(frames, one, other, strict=True):
        loss = np.abs(original.image.astype(int) - a.image).mean()
        assert np.abs(original.image.astype(int) - b.image).mean() < loss + 0.7
    assert duration_s(whole) == duration_s(joined)
    assert audio_of(whole) == audio_of(joined)


def audio_of(path: Path) -> list[tuple[int, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(*container.streams.audio) if container.streams.audio else []
        return sorted((packet.stream_index, bytes(packet)) for packet in packets if packet.size)


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts.boundaries, "__defaults__", (10,))


@pytest.fixture(scope="module")
def wide_clip(clip_folder: Path) -> Path:
    """Wide enough for x264 to encode it to the same bytes each time: its macroblock tree is not below."""
    return make_clip(clip_folder / "wide.mp4", size=(256, 128))


@pytest.fixture(scope="module")
def empty_plan(wide_clip: Path) -> Plan:
    return analysed(wide_clip, SETTINGS)


@pytest.mark.usefixtures("short_parts")
def test_finished_parts_are_kept_and_the_result_is_the_same(
    wide_clip: Path, empty_plan: Plan, tmp_path: Path
) -> None:
    folder = tmp_path / "parts"
    seen: list[tuple[int, int]] = []

    def make(target: Path, folder: Path) -> bytes:
        summary = render_in_parts(
            *(wide_clip, empty_plan, target, SETTINGS, ModelStore(), lambda *p: seen.append(p)),
            executor=make_executor("serial", 1),
            folder=folder,
        )
        assert summary.frames == 30
        return target.read_bytes()

    first = make(tmp_path / "one.mp4", folder)
    assert seen[-1] == (30, 30)
    files = sorted(folder.iterdir())
    assert len(files) == 6
    stamps = {path: path.stat().st_mtime_ns for path in files}
    files[0].unlink()
    assert make(tmp_path / "two.mp4", folder) == first
    kept = {path for path in files if path.exists() and path.stat().st_mtime_ns == stamps[path]}
    assert len(kept) >= 4, "only the part with a missing file is drawn again"
    assert make(tmp_path / "three.mp4", tmp_path / "elsewhere") == first
    render(wide_clip, empty_plan, tmp_path / "whole.mp4", SETTINGS, ModelStore())
    for one, other in zip(frames_of(tmp_path / "one.mp4"), frames_of(tmp_path / "whole.mp4"), strict=True):
        assert one.pts == other.pts
        assert np.abs(one.image.astype(int) - other.image).mean() < 1.5
