"""Small clips made on the spot, one per way in which real files differ."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import settings
from nobody import substitute

from vidanon.errors import ModelsError
from vidanon.identity import choose
from vidanon.models.registry import ModelStore
from vidanon.plan import analyse
from vidanon.settings import Settings
from vidanon.types import Plan

# A busy machine is no finding.
settings.register_profile("vidanon", deadline=None)
settings.load_profile("vidanon")

RATE = 25
TIME_BASE = Fraction(1, 12800)
SAMPLE_RATE = 16000
UNEVEN = np.random.default_rng(7).integers(100, 1500, 30).cumsum().tolist()
"""Time stamps of a variable frame rate."""


def picture(index: int, width: int, height: int) -> np.ndarray:
    """A smooth gradient with a bright block top left and a red block that moves with the index."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([60 + 60 * columns / width, 60 + 60 * rows / height, np.full((height, width), 90)], 2)
    image[: height // 4, : width // 4] = (240, 240, 240)
    left = (4 * index) % max(1, width - 16)
    image[height // 2 : height // 2 + 12, left : left + 12] = (200, 30, 30)
    return image.astype(np.uint8)


def make_clip(
    path: Path,
    *,
    size: tuple[int, int] = (96, 64),
    pts: Sequence[int] = tuple(range(0, 30 * 512, 512)),
    time_base: Fraction = TIME_BASE,
    audio_codecs: Sequence[str] = ("aac",),
    rotation_deg: int = 0,
    pixel_format: str = "yuv420p",
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    setup: Callable[[av.VideoStream], None] | None = None,
) -> Path:
    """Write a clip; ``options`` go to the container, ``setup`` may change the video stream's context."""
    width, height = size
    with av.open(str(path), "w", container_options=options or {}) as output:
        output.metadata.update(
            title="holiday", location="+48.85+002.35/", creation_time="2020-01-01T00:00:00Z"
        )
        video = output.add_stream(codec, rate=RATE)
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        video.time_base = video.codec_context.time_base = time_base
        if rotation_deg:
            video.set_display_rotation(rotation_deg)
        if setup:
            setup(video)
        tracks = [
            output.add_stream(name, rate=SAMPLE_RATE if name != "libopus" else 48000) for name in audio_codecs
        ]
        for track in tracks:
            track.codec_context.layout = "mono"
        for index, stamp in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = stamp, time_base
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for number, track in enumerate(tracks):
            _write_tone(output, track, 220.0 * (number + 1), float(pts[-1] * time_base) + 1 / RATE)
    return path


def _write_tone(
    output: av.container.OutputContainer, track: av.AudioStream, hertz: float, seconds: float
) -> None:
    rate = track.codec_context.sample_rate
    samples = (8000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.int16)
    resampler = av.AudioResampler(format=track.codec_context.format, layout="mono", rate=rate)
    for start in range(0, len(samples), 1024):
        block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = rate, start, Fraction(1, rate)
        for frame in resampler.resample(block):
            output.mux(track.encode(frame))
    output.mux(track.encode(None))


def analysed(path: Path, settings: Settings) -> Plan:
    """Analyse a clip with the real networks; without them the test is skipped."""
    try:
        return analyse(path, settings, ModelStore())
    except ModelsError:
        pytest.skip("the models are not here; run 'vidanon models fetch'")


def duration_s(path: Path) -> float:
    """When the file's last stream ends, as its container states it.

    Durations of packets would not do: FFmpeg takes them from decoding times.
    """
    with av.open(str(path)) as container:
        assert container.duration is not None
        return container.duration / av.time_base


@pytest.fixture(scope="module", autouse=True)
def settled_keys() -> Iterator[None]:
    """Draw the same "random" keys in every run: who gets which face must not decide whether a test passes."""
    stream = random.Random(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose.secrets, "token_bytes", stream.randbytes)
        yield


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put roles in place that see nobody and need no network."""
    substitute(monkeypatch.setattr)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="session")
def plain_clip(clip_folder: Path) -> Path:
    """H.264 and AAC, 96x64, 30 frames at 25 fps, BT.709 limited range, metadata."""

    def tags(video: av.VideoStream) -> None:
        context = video.codec_context
        context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1

    return make_clip(clip_folder / "plain.mp4", setup=tags)


@pytest.fixture(scope="session")
def vfr_clip(clip_folder: Path) -> Path:
    """Variable frame rate, first picture not at zero."""
    return make_clip(clip_folder / "vfr.mp4", pts=UNEVEN)


@pytest.fixture(scope="session")
def silent_vfr_clip(clip_folder: Path) -> Path:
    """The same without audio: it ends with its last picture."""
    return make_clip(clip_folder / "silent_vfr.mp4", pts=UNEVEN, audio_codecs=())


@pytest.fixture(scope="session")
def rotated_clip(clip_folder: Path) -> Path:
    """Stored 96x64, shown 64x96 (display matrix, 90 degrees counter-clockwise)."""
    return make_clip(clip_folder / "rotated.mp4", rotation_deg=90)


@pytest.fixture(scope="session")
def silent_clip(clip_folder: Path) -> Path:
    """No audio."""
    return make_clip(clip_folder / "silent.mp4", audio_codecs=())


@pytest.fixture(scope="session")
def two_audio_clip(clip_folder: Path) -> Path:
    """Two audio streams of different codecs."""
    return make_clip(
        clip_folder / "two_audio.mkv",
        audio_codecs=("aac", "libopus"),
        time_base=Fraction(1, 1000),
        pts=range(0, 1200, 40),
    )


@pytest.fixture(scope="session")
def odd_clip(clip_folder: Path) -> Path:
    """Odd width and height."""
    return make_clip(clip_folder / "odd.mp4", size=(97, 63), pixel_format="yuv444p")


@pytest.fixture(scope="session")
def ten_bit_clip(clip_folder: Path) -> Path:
    """Ten bits per component."""
    return make_clip(clip_folder / "ten_bit.mp4", pixel_format="yuv420p10le")


@pytest.fixture(scope="session")
def gif_clip(clip_folder: Path) -> Path:
    """Animated GIF with uneven delays."""
    return make_clip(
        clip_folder / "moving.gif",
        pts=[0, 10, 25, 30, 70],
        time_base=Fraction(1, 100),
        codec="gif",
        pixel_format="rgb8",
        audio_codecs=(),
    )


@pytest.fixture(scope="session")
def truncated_clip(clip_folder: Path) -> Path:
    """The last 40 % of the file's bytes are missing; its index is whole and at the front."""
    whole = make_clip(
        clip_folder / "whole.mp4",
        size=(192, 128),
        pts=tuple(range(0, 90 * 512, 512)),
        options={"movflags": "+faststart"},
    )
    data = whole.read_bytes()
    path = clip_folder / "truncated.mp4"
    path.write_bytes(data[: int(len(data) * 0.6)])
    return path


@pytest.fixture(scope="session")
def empty_file(clip_folder: Path) -> Path:
    path = clip_folder / "empty.mp4"
    path.touch()
    return path


@pytest.fixture(scope="session")
def text_file(clip_folder: Path) -> Path:
    path = clip_folder / "notes.txt"
    path.write_text("these are notes\n" * 40)
    return path


@pytest.fixture(scope="session")
def audio_file(clip_folder: Path) -> Path:
    """Sound only."""
    path = clip_folder / "sound.m4a"
    with av.open(str(path), "w") as output:
        track = output.add_stream("aac", rate=SAMPLE_RATE)
        track.codec_context.layout = "mono"
        _write_tone(output, track, 440.0, 1.0)
    return path
