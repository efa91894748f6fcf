"""Reading video: what a file holds, and its pictures one by one.

With :mod:`vidanon.stages.encode` the only place that talks to FFmpeg (through PyAV). Only the first
real video stream is read; cover art and further video streams are left out on purpose, as they would show
the very faces that are to go. :mod:`vidanon.stages.stills` reads pictures behind the same interface.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.reformatter import Interpolation, VideoReformatter

from vidanon.errors import InputError
from vidanon.stages import stills
from vidanon.stages.fingerprint import file_state, fingerprint
from vidanon.types import Frame, UInt16, VideoInfo, eight_bit

log = logging.getLogger("vidanon")

MAX_CONSECUTIVE_CORRUPT = 8
"""Packets in a row that may fail before the rest of the file is given up."""
DECODER_THREADS = 2
# A picture and its side data refer to each other in PyAV: otherwise hundreds of pictures wait to be freed.
COLLECT_EVERY_FRAMES = 16

# FFmpeg "plays" text files as terminal art; nobody means that.
_TEXT_FORMATS = frozenset({"tty", "bin", "xbin", "idf", "adf"})
# swscale's fast path darkens luma by one level on the way to RGB and back; accurate rounding does not, but
# takes five times as long.
_FAST = Interpolation.BILINEAR
_EXACT = _FAST | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# rgb48le overflows in swscale with these flags; the planar format does not.
_DEEP = "gbrp16le"
_FALLBACK_RATE = Fraction(25)
_EARLY_S = 0.5  # a video that ends so long before its stated end was cut off; containers round by less
_UNSTATED = frozenset({"mpegts", "mpeg"})  # they state no duration; FFmpeg guesses one


def open_source(path: Path) -> InputContainer:
    """Open a file for demuxing.

    Raises:
        InputError: missing, not a file, empty, unreadable, or nothing FFmpeg knows as a video.
    """
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file; check the path")
        if not path.is_file():
            raise InputError(f"{path}: not a file; name one video file")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty; get a complete copy")
        # An absolute path cannot be taken for a URL or a protocol.
        container = av.open(str(path.resolve()), metadata_errors="replace")
    except InputError:
        raise
    except (av.FFmpegError, OSError) as error:
        reason = (
            "not readable" if isinstance(error, PermissionError) else "not a video, or damaged beyond use"
        )
        raise InputError(f"{path}: {reason} ({_short(error)}); give a video file") from error
    if container.format.name in _TEXT_FORMATS:
        container.close()
        raise InputError(f"{path}: not a video (a text file); give a video file")
    return container


def video_stream(container: InputContainer, path: Path) -> av.VideoStream:
    """The stream whose pictures are used: the first that is not cover art.

    Raises:
        InputError: there is none, or FFmpeg has no decoder for it.
    """
    for stream in container.streams.video:
        if stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            continue
        # PyAV gives no codec context where no decoder is built in.
        if stream.codec_context is None:
            raise InputError(f"{path}: no decoder for its video stream; convert it to H.264 first")
        return stream
    raise InputError(f"{path}: no video stream in it; give a file with pictures")


def packets(container: InputContainer, *streams: Stream) -> Iterator[av.Packet[Stream] | None]:
    """Packets in file order; ``None`` stands for a place in the file that could not be read.

    The last packets are PyAV's empty ones (``size`` 0, ``dts`` None), which flush a decoder. The caller
    bounds the number of ``None`` in a row.
    """
    while True:
        try:
            yield from container.demux(*streams)
            return
        except (av.FFmpegError, OSError):
            yield None


def probe(path: Path) -> VideoInfo:
    """What the file holds. Decodes its first picture, which is where rotation and depth are certain.

    Raises:
        InputError: missing, empty, not a video, no video stream, or no picture that can be decoded.
    """
    if stills.is_stills(path):
        return stills.probe_stills(path, fingerprint(path))
    with open_source(path) as container:
        stream = video_stream(container, path)
        first = _first(container, stream, path)
        turns, _ = _orientation(first)
        width, height = (first.width, first.height) if turns % 2 == 0 else (first.height, first.width)
        assert stream.time_base is not None, "an opened stream has a time base"
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            time_base=stream.time_base,
            average_rate=stream.average_rate or stream.guessed_rate or _FALLBACK_RATE,
            frame_count=stream.frames,
            rotation_deg=turns * 90,
            codec=stream.codec_context.name,
            bit_depth=max(component.bits for component in first.format.components),
            audio_streams=len(container.streams.audio),
            fingerprint=fingerprint(path),
        )


class Decoder:
    """The pictures of one video, in display order and orientation; a context manager, read once.

    Attributes:
        info: what :func:`probe` found.
        corrupt_packets: packets skipped so far because they could not be read or decoded; at the end also
            those that the file's index lists behind the end of the file.
        ended_early: True when the file is cut off, or when more than ``MAX_CONSECUTIVE_CORRUPT`` packets
            in a row failed and the rest was given up.
        notes: what a reader of the result should know of the source, complete when all was read.
    """

    def __init__(self, path: Path, exact: bool = True) -> None:
        """Probe the file.

        Args:
            path: of the video.
            exact: round colours exactly, for pictures that are written again; where they are only looked
                at, it is not worth the time.

        Raises:
            InputError: as :func:`probe`.
        """
        self._state = file_state(path)
        self.info = probe(path)
        self._damage = _Damage()
        self._missing = 0
        self._lost_s = 0.0
        self._to_rgb, self._rounding = VideoReformatter(), _EXACT if exact else _FAST
        self._stills = stills.is_stills(path)
        self._container: InputContainer | None = None

    @property
    def corrupt_packets(self) -> int:
        """Packets skipped so far."""
        return self._damage.total + self._missing

    @property
    def ended_early(self) -> bool:
        """Whether the file is cut off or its rest was given up."""
        return self._damage.hopeless or self._missing > 0 or self._lost_s > _EARLY_S

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know of the source."""
        notes = []
        if self.corrupt_packets:
            notes.append(f"{self.corrupt_packets} corrupt packets were skipped")
        if self.ended_early:
            lost = f" by {self._lost_s:.1f} s" if self._lost_s > _EARLY_S else ""
            notes.append(f"the video ends before its stated end{lost}")
        return tuple(notes)

    def __enter__(self) -> Decoder:
        info = self.info
        log.info(
            "reading %s: %s, %dx%d, %d bit, %.3f fps, %s frames, %d audio streams, turned by %d degrees",
            *(info.path, info.codec, info.width, info.height, info.bit_depth, float(info.average_rate)),
            *(info.frame_count or "?", info.audio_streams, info.rotation_deg),
        )
        if not self._stills:
            self._container = open_source(self.info.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield every picture once.

        Time stamps rise strictly: a picture without one, or with one not after its predecessor's (broken
        files only), is put one tick after the predecessor.

        Raises:
            InputError: the source was changed while it was read.
        """
        yield from stills.read_stills(self.info.path) if self._stills else self._video_frames()
        if file_state(self.info.path) != self._state:
            raise InputError(
                f"{self.info.path}: was changed while it was read; run again when it is complete"
            )

    def part(self, wanted: Collection[int], start: tuple[int, int] | None = None) -> Iterator[Frame]:
        """Yield the pictures whose index is among ``wanted`` instead of all.

        Args:
            wanted: indices; only their pictures are converted, and none behind the last is decoded.
            start: index and time stamp of a picture of :func:`vidanon.stages.keys.key_pictures`, not after
                the first wanted one, at which to begin decoding; None for the beginning of the file.

        Raises:
            InputError: the picture at which to begin is not found.
        """
        if self._stills:
            yield from stills.read_stills(self.info.path, wanted)
            return
        end = max(wanted, default=-1)
        container = self._opened()
        stream = video_stream(container, self.info.path)
        pictures = _pictures(container, stream, self._damage)
        first, last = 0, None
        if start is not None:
            first, stamp = start
            container.seek(stamp, stream=stream)
            pictures = _from(pictures, stamp, self.info.path)
        for index, picture in enumerate(pictures, first):
            if index > end:
                return
            last = _stamp(picture, last)
            if index in wanted:
                yield self._frame(index, last, picture)

    def _opened(self) -> InputContainer:
        if self._container is None:
            raise RuntimeError("use Decoder in a with statement")
        return self._container

    def _video_frames(self) -> Iterator[Frame]:
        container = self._opened()
        stream = video_stream(container, self.info.path)
        last: int | None = None
        duration = 0
        for index, picture in enumerate(_pictures(container, stream, self._damage)):
            last, duration = _stamp(picture, last), picture.duration
            yield self._frame(index, last, picture)
        if not self._damage.hopeless:
            # FFmpeg takes a file that is shorter than its index says for one that ends there.
            end = self.info.path.stat().st_size
            self._missing = sum(entry.pos >= end for entry in stream.index_entries)
        if last is not None:
            shown_s = duration * self.info.time_base or 1 / self.info.average_rate
            ended_s = float(last * self.info.time_base + shown_s)
            self._lost_s = max(0.0, _stated_end_s(container, stream) - ended_s)

    def _frame(self, index: int, pts: int, picture: av.VideoFrame) -> Frame:
        if index % COLLECT_EVERY_FRAMES == 0:
            gc.collect(int(index % (8 * COLLECT_EVERY_FRAMES) == 0))
        if self.info.bit_depth > 8:
            deep: UInt16 = self._upright(picture, _DEEP)
            return Frame(index=index, pts=pts, image=eight_bit(deep), deep=deep)
        return Frame(index=index, pts=pts, image=self._upright(picture, "rgb24"))

    def _upright(self, picture: av.VideoFrame, pixels: str) -> Any:
        """RGB in display orientation, in the size of the first picture (a stream may change its size)."""
        turns, mirrored = _orientation(picture)
        width, height = self.info.width, self.info.height
        if turns % 2:
            width, height = height, width
        image = self._to_rgb.reformat(
            picture, width=width, height=height, format=pixels, interpolation=self._rounding, threads=1
        ).to_ndarray()
        if mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, turns))


def _stated_end_s(container: InputContainer, stream: av.VideoStream) -> float:
    """When the video ends according to its container, seconds; 0 where that is not known.

    The duration of the whole file may be that of a longer sound track, so it is not asked where there is one.
    """
    if container.format.name in _UNSTATED:
        return 0.0
    if stream.duration and stream.time_base:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    # Matroska: an optional tag, hh:mm:ss.nnnnnnnnn
    hours, minutes, seconds = [*stream.metadata.get("DURATION", "").split(":"), "", ""][:3]
    try:
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return container.duration / 1e6 if container.duration and len(container.streams) == 1 else 0.0


def _from(pictures: Iterator[av.VideoFrame], pts: int, path: Path) -> Iterator[av.VideoFrame]:
    """Leave out what comes before the picture with a time stamp."""
    for picture in pictures:
        if picture.pts == pts:
            yield picture
            yield from pictures
            return
        if picture.pts is not None and picture.pts > pts:
            break
    raise InputError(f"{path}: cannot be read from the middle; run again with --jobs 1")


def _stamp(picture: av.VideoFrame, last: int | None) -> int:
    """The time stamp of a picture, made to rise where it does not."""
    pts = picture.pts if picture.pts is not None else 0
    return last + 1 if last is not None and pts <= last else pts


class _Damage:
    """Counts packets that failed, in total and in a row."""

    def __init__(self) -> None:
        self.total = 0
        self.in_a_row = 0

    @property
    def hopeless(self) -> bool:
        return self.in_a_row > MAX_CONSECUTIVE_CORRUPT

    def note(self) -> None:
        self.total += 1
        self.in_a_row += 1


def _pictures(container: InputContainer, stream: av.VideoStream, damage: _Damage) -> Iterator[av.VideoFrame]:
    """Decode in display order; skip what is damaged, stop where ``damage`` is hopeless."""
    # Set explicitly: PyAV's automatic threading is known to hang beside torch.
    stream.thread_type = "FRAME"
    stream.thread_count = DECODER_THREADS
    for packet in packets(container, stream):
        if packet is None or packet.is_corrupt:
            damage.note()
        elif packet.size == 0:
            break
        else:
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                damage.note()
            else:
                damage.in_a_row = 0
                yield from (picture for picture in decoded if isinstance(picture, av.VideoFrame))
        if damage.hopeless:
            break
    yield from _drain(stream, damage)


def _drain(stream: av.VideoStream, damage: _Damage) -> Iterator[av.VideoFrame]:
    """The pictures that the decoder still holds back."""
    for _ in range(MAX_CONSECUTIVE_CORRUPT):
        try:
            yield from stream.codec_context.decode(None)
        except EOFError:
            return
        except av.FFmpegError:
            damage.total += 1
        else:
            return


def _orientation(picture: av.VideoFrame) -> tuple[int, bool]:
    """Quarter turns counter-clockwise (0..3), to apply after an optional left-right mirroring.

    The display matrix maps stored (x, y) to displayed (a x + c y, b x + d y), y down, 16.16 fixed point
    (FFmpeg, libavutil/display.h). Angles that are no multiple of 90 degrees are rounded to one.
    """
    matrix = side_data(picture, "DISPLAYMATRIX")
    if matrix is None:
        return round(picture.rotation / 90) % 4, False
    a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, dtype=np.int32)[:5])
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return round(math.degrees(math.atan2(-b, a)) / 90) % 4, mirrored


def side_data(picture: av.VideoFrame, name: str) -> bytes | None:
    """Side data of a picture by its name in FFmpeg, or None where it has none that PyAV can read."""
    try:
        # PyAV's stubs do not list what get returns.
        found = cast("Buffer | None", picture.side_data.get(name))
    except ValueError:
        # PyAV fails on every picture that has side data of a kind it does not know, such as EXIF.
        return None
    return None if found is None else bytes(found)


def first_picture(path: Path) -> av.VideoFrame:
    """The first picture of a file as FFmpeg decodes it.

    Raises:
        InputError: none can be decoded.
    """
    with open_source(path) as container:
        return _first(container, video_stream(container, path), path)


def _first(container: InputContainer, stream: av.VideoStream, path: Path) -> av.VideoFrame:
    first = next(_pictures(container, stream, _Damage()), None)
    if first is None:
        raise InputError(f"{path}: holds no picture that can be decoded; get a complete copy")
    return first


def _short(error: BaseException) -> str:
    """The reason of an FFmpeg or system error, without number and path."""
    return getattr(error, "strerror", None) or str(error)
