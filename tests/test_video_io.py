"""Video in, video out: nothing but the pictures may change."""

from __future__ import annotations

import gc
import hashlib
import re
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import duration_s, make_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidanon.errors import InputError, OutputError
from vidanon.stages.decode import Decoder, probe
from vidanon.stages.emphasis import region_of
from vidanon.stages.encode import Encoder, open_encoder
from vidanon.stages.hdr import x264_params
from vidanon.stages.target import publish, rejected_path, temporary_path
from vidanon.types import Frame


@dataclass(frozen=True)
class Quick:
    """Stands for EncodeSettings."""

    crf: int = 18
    preset: str = "ultrafast"
    small_faces: float = 0.2
    keep_metadata: bool = False


FACE = np.array([21, 5, 83, 70], np.float32)
"""Where copies are to be better; nothing else about them may be other for that."""


def read(path: Path) -> list[Frame]:
    with Decoder(path) as decoder:
        return list(decoder)


def copy(source: Path, target: Path) -> list[Frame]:
    with Decoder(source) as decoder, Encoder(source, decoder.info, target, Quick()) as encoder:
        frames = []
        for frame in decoder:
            encoder.write(frame, [FACE])
            frames.append(frame)
    return frames


def times(path: Path, frames: list[Frame]) -> list[Fraction]:
    base = probe(path).time_base
    return [frame.pts * base for frame in frames]


def audio_hashes(path: Path) -> list[str]:
    """SHA-256 over the payload of all packets, per audio stream."""
    with av.open(str(path)) as container:
        digests = {stream.index: hashlib.sha256() for stream in container.streams.audio}
        for packet in container.demux():
            if packet.size and packet.stream_index in digests:
                digests[packet.stream_index].update(bytes(packet))
    return [digest.hexdigest() for digest in digests.values()]


CLIPS = [
    "plain_clip",
    "vfr_clip",
    "rotated_clip",
    "silent_clip",
    "two_audio_clip",
    "odd_clip",
    "ten_bit_clip",
    "gif_clip",
]


@pytest.mark.parametrize("name", CLIPS)
def test_copy_keeps_frames_times_sound_and_size(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(name)
    target = tmp_path / f"copy{source.suffix if source.suffix != '.gif' else '.mp4'}"
    frames = copy(source, target)
    result = read(target)
    assert [frame.index for frame in result] == list(range(len(frames)))
    assert times(target, result) == times(source, frames)
    assert audio_hashes(target) == audio_hashes(source)
    before, after = probe(source), probe(target)
    assert (after.width, after.height) == (before.width, before.height)
    assert (after.bit_depth, after.rotation_deg) == (before.bit_depth, 0)
    assert after.audio_streams == before.audio_streams
    for old, new in zip(frames, result, strict=True):
        difference = old.image.astype(int) - new.image
        # A wrong matrix, range or rotation is far above; a GIF's dithering cannot be kept at 4:2:0.
        assert np.abs(difference).mean() < (25 if name == "gif_clip" else 4)
        assert np.abs(difference.mean((0, 1))).max() < 2.5


@pytest.mark.parametrize("name", ["silent_clip", "silent_vfr_clip", "gif_clip"])
def test_mp4_keeps_the_time_base_and_the_last_duration(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(name)
    copy(source, tmp_path / "copy.mp4")
    assert probe(tmp_path / "copy.mp4").time_base == probe(source).time_base
    assert duration_s(tmp_path / "copy.mp4") == pytest.approx(
        duration_s(source), abs=0.0015
    )  # FFmpeg rounds to ms


def test_rotation_turns_the_pictures(rotated_clip: Path, silent_clip: Path) -> None:
    info = probe(rotated_clip)
    assert (info.width, info.height, info.rotation_deg) == (64, 96, 90)
    upright, stored = read(rotated_clip)[0].image, read(silent_clip)[0].image
    assert upright.shape == (96, 64, 3)
    # The bright block is stored top left; a quarter turn counter-clockwise puts it bottom left.
    assert upright[-8:, :8].min() > 200
    assert np.abs(np.rot90(stored).astype(int) - upright).mean() < 2


def test_drawn_pixels_of_a_deep_frame_are_written(ten_bit_clip: Path, tmp_path: Path) -> None:
    """What was drawn comes from the 8-bit image, what was not from the source's own ten bits."""
    target = tmp_path / "copy.mp4"
    quick = replace(Quick(), crf=1)
    with Decoder(ten_bit_clip) as decoder, open_encoder(ten_bit_clip, decoder.info, target, quick) as encoder:
        before = []
        for frame in decoder:
            before.append(frame.deep)
            image = frame.image.copy()
            image[20:40, 20:60] = (10, 200, 60)
            encoder.write(replace(frame, image=image))
    for old, new in zip(before, read(target), strict=True):
        assert old is not None and new.deep is not None
        assert np.abs(new.image[24:36, 24:56].astype(int) - (10, 200, 60)).max() < 6
        assert np.abs(new.deep[44:].astype(int) - old[44:]).mean() < 257


@pytest.mark.parametrize("preset", ["ultrafast", "veryfast"])
def test_small_faces_are_encoded_better_than_what_surrounds_them(tmp_path: Path, preset: str) -> None:
    source = make_clip(tmp_path / "source.mp4", size=(256, 128), pts=range(0, 4096, 512), audio_codecs=())
    random, off = np.random.default_rng(3), {}
    noise = random.integers(60, 190, (8, 128, 256, 1), np.uint8)
    for strength in (0.0, 0.2):
        target, chosen = tmp_path / "copy.mp4", replace(Quick(), crf=26, preset=preset, small_faces=strength)
        with Decoder(source) as decoder, Encoder(source, decoder.info, target, chosen) as encoder:
            drawn = [replace(frame, image=noise[frame.index].repeat(3, axis=2)) for frame in decoder]
            for frame in drawn:
                encoder.write(frame, [FACE])
        gaps = [np.abs(a.image.astype(int) - b.image) for a, b in zip(read(target), drawn, strict=True)]
        off[strength] = [
            np.mean([gap[place].mean() for gap in gaps]) for place in (np.s_[16:64, 32:80], np.s_[:, 128:])
        ]
    (face, around), (face_marked, around_marked) = off[0.0], off[0.2]
    assert face_marked < 0.7 * face
    assert 0.95 * around < around_marked < 1.3 * around


@given(
    corner=st.tuples(st.floats(-200, 700), st.floats(-200, 500)),
    side=st.floats(1, 400),
    size=st.tuples(st.integers(2, 640), st.integers(2, 400)),
)
def test_regions_show_small_faces_and_lie_in_the_picture(
    corner: tuple[float, float], side: float, size: tuple[int, int]
) -> None:
    box = np.array([*corner, corner[0] + side, corner[1] + side], np.float32)
    region = region_of(box, *size, 0.2)
    low, high = np.maximum(box[:2], 0), np.minimum(box[2:], size)
    if region is None:
        assert side > 150 or (high - low).min() <= 0
        return
    x, y, width, height, added = region
    assert -0.2 <= added < 0 and (side > 64 or added == -0.2)
    assert x % 16 == y % 16 == 0 and width > 0 and height > 0
    assert x + width <= size[0] and y + height <= size[1]
    if (high > low).all():
        assert x <= low[0] and y <= low[1] and x + width >= high[0] - 1 and y + height >= high[1] - 1


def test_a_long_last_picture_is_no_early_end(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "slides.mp4", pts=(0, 512), audio_codecs=())
    slides = tmp_path / "long.mp4"
    with av.open(str(source)) as container, av.open(str(slides), "w") as output:
        twin = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux():
            if packet.size:
                packet.stream, packet.duration = twin, 5 * 12800
                output.mux(packet)
    with Decoder(slides) as decoder:
        assert len(list(decoder)) == 2
        assert decoder.notes == ()


@given(
    chromaticities=st.lists(st.integers(0, 50000), min_size=8, max_size=8),
    luminance=st.tuples(st.integers(0, 10000), st.integers(1, 100_000_000)),
    light=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
)
def test_hdr10_figures_become_encoder_parameters(
    chromaticities: list[int], luminance: tuple[int, int], light: tuple[int, int]
) -> None:
    pairs = [(value, 50000) for value in chromaticities] + [(value, 10000) for value in luminance]
    display = struct.pack("=22i", *(number for pair in pairs for number in pair), 1, 1)
    mastering, level = x264_params(display, struct.pack("=2I", *light))
    numbers = [int(number) for number in re.findall(r"\d+", mastering)]
    red, green, blue, white = (chromaticities[i : i + 2] for i in range(0, 8, 2))
    assert numbers == [*green, *blue, *red, *white, *reversed(luminance)]
    assert level == f"cll={light[0]},{light[1]}"


def test_hdr10_figures_that_are_not_known_are_not_made_up() -> None:
    assert x264_params(None, None) == []
    assert x264_params(bytes(88), None) == []
    assert x264_params(struct.pack("=22i", *([1, 0] * 10), 1, 1), b"") == []


def test_mirrored_display_matrix_is_applied(tmp_path: Path) -> None:
    path = make_clip(
        tmp_path / "mirror.mp4",
        setup=lambda video: video.set_display_rotation(0, hflip=True),
        audio_codecs=(),
    )
    image = read(path)[0].image
    assert image[:8, -8:].min() > 200
    assert image[:8, :8].max() < 200


def test_colour_tags_are_kept(plain_clip: Path, tmp_path: Path) -> None:
    copy(plain_clip, tmp_path / "copy.mp4")
    with av.open(str(tmp_path / "copy.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert tags == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"


def test_full_range_is_kept(tmp_path: Path) -> None:
    def full(video: av.VideoStream) -> None:
        video.codec_context.color_range = 2

    source = make_clip(tmp_path / "full.mp4", pixel_format="yuvj420p", setup=full)
    frames = copy(source, tmp_path / "copy.mp4")
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert container.streams.video[0].codec_context.color_range == 2
    assert np.abs(frames[0].image.astype(int) - read(tmp_path / "copy.mp4")[0].image).mean() < 4


@pytest.mark.parametrize(("rotation", "expected"), [(0, Fraction(4, 3)), (90, Fraction(3, 4))])
def test_sample_aspect_ratio_is_kept(rotation: int, expected: Fraction, tmp_path: Path) -> None:
    def wide(video: av.VideoStream) -> None:
        video.codec_context.sample_aspect_ratio = Fraction(4, 3)

    source = make_clip(tmp_path / "wide.mp4", setup=wide, rotation_deg=rotation)
    copy(source, tmp_path / "copy.mp4")
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == expected


def test_metadata_is_not_carried_over(plain_clip: Path, tmp_path: Path) -> None:
    with av.open(str(plain_clip)) as container:
        assert container.metadata["title"] == "holiday"
    copy(plain_clip, tmp_path / "copy.mp4")
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert not {"title", "location", "creation_time", "encoder"} & set(container.metadata)
    assert b"holiday" not in (tmp_path / "copy.mp4").read_bytes()


def test_webm_is_vp9(tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "in.mkv", audio_codecs=("libopus",), time_base=Fraction(1, 1000), pts=range(0, 400, 40)
    )
    frames = copy(source, tmp_path / "out.webm")
    assert probe(tmp_path / "out.webm").codec == "vp9"
    assert times(tmp_path / "out.webm", read(tmp_path / "out.webm")) == times(source, frames)
    assert audio_hashes(tmp_path / "out.webm") == audio_hashes(source)


def test_nothing_drifts_when_a_video_is_copied_again(plain_clip: Path, tmp_path: Path) -> None:
    first = read(plain_clip)[0].image.astype(int)
    source = plain_clip
    for generation in range(4):
        target = tmp_path / f"{generation}.mp4"
        copy(source, target)
        source = target
    assert np.abs((read(source)[0].image - first).mean((0, 1))).max() < 1


def test_sound_is_interleaved_with_pictures(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "long.mp4", pts=range(0, 300 * 512, 512))
    copy(source, tmp_path / "copy.mp4")
    with av.open(str(tmp_path / "copy.mp4")) as container:
        places: dict[str, list[int]] = {"audio": [], "video": []}
        for packet in container.demux():
            if packet.size:
                assert packet.pos is not None
                places[packet.stream.type].append(packet.pos)
    middle = np.median(places["video"])
    assert min(places["audio"]) < middle < max(places["audio"])


def test_truncated_tail_keeps_the_good_part(truncated_clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.mp4"
    with (
        Decoder(truncated_clip) as decoder,
        Encoder(truncated_clip, decoder.info, target, Quick()) as encoder,
    ):
        frames = []
        for frame in decoder:
            encoder.write(frame)
            frames.append(frame)
    assert 20 < len(frames) < 90
    assert decoder.corrupt_packets >= 90 - len(frames) - 1
    assert decoder.ended_early
    assert times(target, read(target)) == times(truncated_clip, frames)


def test_damage_in_the_middle_is_skipped(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "damaged.mp4", audio_codecs=())
    with av.open(str(source)) as container:
        spots = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    data = bytearray(source.read_bytes())
    for start, size in spots[10:13]:
        assert start is not None
        data[start : start + size] = b"\xff" * size
    source.write_bytes(bytes(data))
    with Decoder(source) as decoder:
        frames = list(decoder)
    assert decoder.corrupt_packets == 3
    assert not decoder.ended_early
    assert len(frames) == 27


@pytest.mark.parametrize(
    ("name", "words"),
    [("empty_file", "empty"), ("text_file", "not a video"), ("audio_file", "no video stream")],
)
def test_unusable_sources_are_named_in_one_line(
    name: str, words: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(name)
    with pytest.raises(InputError, match=words) as caught:
        probe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_rubbish_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        probe(tmp_path / "nowhere.mp4")
    with pytest.raises(InputError, match="no pictures in this folder"):
        probe(tmp_path)
    (tmp_path / "rubbish.mp4").write_bytes(np.random.default_rng(1).bytes(5000))
    with pytest.raises(InputError, match="not a video"):
        probe(tmp_path / "rubbish.mp4")


def test_source_without_a_decodable_picture(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "hollow.mp4", audio_codecs=(), options={"movflags": "+faststart"})
    with av.open(str(source)) as container:
        first = min(
            p.pos for p in container.demux(container.streams.video[0]) if p.size and p.pos is not None
        )
    source.write_bytes(source.read_bytes()[:first])
    with pytest.raises(InputError, match=r"no picture|not a video"):
        probe(source)


def test_cover_art_is_not_a_video(audio_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cover.m4a"
    with av.open(str(audio_file)) as source, av.open(str(path), "w", format="mp4") as output:
        sound = output.add_stream_from_template(source.streams.audio[0])
        cover = output.add_stream("png", rate=1)
        cover.width = cover.height = 16
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        output.mux(cover.encode(picture))
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = sound
                output.mux(packet)
    with pytest.raises(InputError, match="no video stream"):
        probe(path)


def test_targets_that_cannot_be_written(plain_clip: Path, tmp_path: Path) -> None:
    info = probe(plain_clip)
    with pytest.raises(OutputError, match=r"\.mp4, \.mov, \.mkv, \.webm"):
        open_encoder(plain_clip, info, tmp_path / "out.gif", Quick())
    with pytest.raises(OutputError, match="source itself"):
        open_encoder(plain_clip, info, plain_clip, Quick())
    with (
        pytest.raises(OutputError, match="cannot be written"),
        Encoder(plain_clip, info, tmp_path / "none" / "out.mp4", Quick()),
    ):
        pass
    with (
        pytest.raises(OutputError, match=r"aac audio; use a target that ends in \.mkv"),
        Encoder(plain_clip, info, tmp_path / "out.webm", Quick()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
from vidanon.errors import OutputError
from vidanon.stages.decode import Decoder
from vidanon.stages.encode import Encoder
source, target = map(Path, sys.argv[1:])
settings = SimpleNamespace(crf=1, preset="ultrafast", small_faces=0.2, keep_metadata=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with Decoder(source) as decoder:
        with Encoder(source, decoder.info, target, settings) as encoder:
            for frame in decoder:
                encoder.write(frame)
except OutputError as error:
    print(error)
    sys.exit(int(error.exit_code))
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_full_disk_is_an_output_error_and_leaves_nothing(
    plain_clip: Path, tmp_path: Path, suffix: str
) -> None:
    """A limit on the file's size stands for the full disk: writes fail in the same way."""
    target = tmp_path / f"out{suffix}"
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(plain_clip), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 6, run.stderr
    assert "free space" in run.stdout
    assert not target.exists()


def test_leaving_by_an_exception_deletes_the_target(plain_clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with (
        pytest.raises(KeyError),
        Decoder(plain_clip) as decoder,
        Encoder(plain_clip, decoder.info, target, Quick()) as encoder,
    ):
        encoder.write(next(iter(decoder)))
        raise KeyError
    assert not target.exists()


def test_writing_nothing_is_refused(plain_clip: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="not one frame"),
        Encoder(plain_clip, probe(plain_clip), tmp_path / "out.mp4", Quick()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_size_are_refused(plain_clip: Path, tmp_path: Path) -> None:
    frame = read(plain_clip)[0]
    with (
        pytest.raises(ValueError, match="does not fit"),
        Encoder(plain_clip, probe(plain_clip), tmp_path / "out.mp4", Quick()) as encoder,
    ):
        encoder.write(replace(frame, image=frame.image[:-2]))


def test_publishing(tmp_path: Path) -> None:
    final = tmp_path / "clip.mp4"
    temporary = temporary_path(final)
    assert (temporary.parent, temporary.suffix) == (tmp_path, ".mp4")
    assert temporary.name.startswith(".")
    temporary.write_bytes(b"new")
    final.write_bytes(b"old")
    publish(temporary, final)
    assert final.read_bytes() == b"new"
    assert not temporary.exists()
    assert rejected_path(final) == tmp_path / "clip.rejected.mp4"
    with pytest.raises(OutputError):
        publish(tmp_path / "none.mp4", final)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    denominator=st.sampled_from([25, 100, 1000, 12800, 30000, 90000]),
    steps=st.lists(st.integers(1, 400), min_size=2, max_size=12),
)
def test_any_rising_time_stamps_survive(denominator: int, steps: list[int], tmp_path: Path) -> None:
    base = Fraction(1, denominator)
    stamps = [int(stamp) for stamp in np.cumsum(steps)]
    options = {"video_track_timescale": str(denominator), "movie_timescale": str(denominator)}
    source = make_clip(
        tmp_path / "in.mp4", pts=stamps, time_base=base, audio_codecs=(), size=(32, 32), options=options
    )
    copy(source, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4", read(tmp_path / "out.mp4")) == [stamp * base for stamp in stamps]


def test_memory_of_decoding_does_not_grow_with_length(tmp_path: Path) -> None:
    stamps = range(0, 200 * 512, 512)
    path = make_clip(tmp_path / "long.mp4", size=(1280, 720), pts=stamps, audio_codecs=())
    waiting = []
    gc.collect()
    gc.disable()  # the decoder must not rely on the interpreter's own rhythm
    try:
        with Decoder(path) as video:
            for frame in video:
                if frame.index in (40, 199):
                    waiting.append(sum(type(x) is av.VideoFrame for x in gc.get_objects()))
    finally:
        gc.enable()
    assert waiting[1] <= waiting[0] + 16
