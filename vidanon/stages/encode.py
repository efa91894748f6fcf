"""Writing video: new pictures, everything else copied packet by packet.

Time stamps and time base are the source's wherever the container allows it (.mp4 and .mov; Matroska and
WebM count in milliseconds by their specification). Rotation is already applied to the frames and is not
written again. Metadata (place, device, dates, encoder) is not carried over; only the languages of
audio and subtitle streams are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.stream import Stream
from av.video.reformatter import Interpolation, VideoReformatter

from vidanon.errors import OutputError
from vidanon.stages.decode import MAX_CONSECUTIVE_CORRUPT, open_source, packets, video_stream
from vidanon.types import Frame, VideoInfo

if TYPE_CHECKING:
    from vidanon.settings import EncodeSettings

VIDEO_CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
"""Target suffix to encoder; also the list of containers that can be written."""

ENCODER_THREADS = 2

_FROM_RGB = Interpolation.BICUBIC | Interpolation.ACCURATE_RND

# AVColorSpace and AVColorRange (ISO/IEC 23091-2 code points and FFmpeg's pixfmt.h).
_MATRIX_BT709 = 1
_MATRIX_BT2020_NCL = 9
_MATRIX_BT2020_CL = 10
_RANGE_LIMITED = 1


def temporary_path(final: Path) -> Path:
    """Hidden file beside ``final`` with the same suffix, to write to before publishing."""
    return final.with_name(f".{final.stem}.{os.getpid()}.partial{final.suffix}")


def rejected_path(final: Path) -> Path:
    """Where a result stays that must not be published: ``clip.mp4`` -> ``clip.rejected.mp4``."""
    return final.with_name(f"{final.stem}.rejected{final.suffix}")


def publish(temporary: Path, final: Path) -> None:
    """Move a finished file to its final name in one step.

    Raises:
        OutputError: the final name cannot be written.
    """
    try:
        temporary.replace(final)
    except OSError as error:
        raise OutputError(f"{final}: cannot be written ({error.strerror}); choose another target") from error


class Encoder:
    """Writes one video beside its source; a context manager.

    Leaving it normally flushes the encoder, copies what is left of audio and subtitles and closes the
    file. Leaving it by an exception deletes the file. Audio and subtitles are copied as far as the
    pictures have come, so memory does not grow with the length of the clip.
    """

    def __init__(self, source: Path, info: VideoInfo, target: Path, settings: EncodeSettings) -> None:
        """Remember what to write; nothing is opened yet.

        Args:
            source: the file that ``info`` was probed from; audio and subtitles come from it.
            info: the source's description; frames must have its size and time base.
            target: file to write; its suffix (.mp4, .mkv, .mov, .webm) chooses the container.
            settings: ``crf`` and ``preset`` of the video encoder.

        Raises:
            OutputError: no such container, or the target is the source.
        """
        if target.suffix.lower() not in VIDEO_CODECS:
            known = ", ".join(VIDEO_CODECS)
            raise OutputError(f"{target}: cannot write this kind of file; use one of {known}")
        if target.exists() and target.samefile(source):
            raise OutputError(f"{target}: is the source itself; choose another target")
        self._source_path, self._info, self._target, self._settings = source, info, target, settings
        self._frames = 0
        self._from_rgb = VideoReformatter()

    def __enter__(self) -> Encoder:
        with contextlib.ExitStack() as stack:
            self._source = stack.enter_context(open_source(self._source_path))
            self._source_video = video_stream(self._source, self._source_path)
            with self._output_errors():
                self._output = _open_target(self._target, self._info)
                stack.callback(self._discard)
                self._video = self._add_video()
                self._copied = self._add_copied()
                self._output.start_encoding()
            stack.pop_all()
        streams = [self._source_video, *(self._source.streams[index] for index in self._copied)]
        self._packets = packets(self._source, *streams)
        self._unreadable_in_a_row = 0
        self._video_seen_dts: int | None = None
        self._durations: dict[int, int] = {}
        return self

    def write(self, frame: Frame) -> None:
        """Encode one picture (uint8 RGB, ``info``'s height and width) at its own time.

        Raises:
            OutputError: the target cannot be written.
        """
        if frame.image.shape != (self._info.height, self._info.width, 3):
            raise ValueError(f"frame {frame.index}: shape {frame.image.shape} does not fit {self._info}")
        self._copy_until(frame.pts)
        context = self._video.codec_context
        picture = self._from_rgb.reformat(
            av.VideoFrame.from_ndarray(frame.image, format="rgb24"),
            format=context.pix_fmt,
            dst_colorspace=_swscale_matrix(context.colorspace),
            dst_color_range=context.color_range or None,
            interpolation=_FROM_RGB,
            threads=1,
        )
        picture.colorspace, picture.color_range = context.colorspace, context.color_range
        picture.color_primaries, picture.color_trc = context.color_primaries, context.color_trc
        picture.pts, picture.time_base = frame.pts, self._info.time_base
        picture.duration = self._durations.pop(frame.pts, 0)
        with self._output_errors():
            self._output.mux(self._video.encode(picture))
        self._frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._discard()
                return
            try:
                self._finish()
            except BaseException:
                self._discard()
                raise
        finally:
            self._source.close()

    def _finish(self) -> None:
        if self._frames == 0:
            raise OutputError(f"{self._target}: not one frame was written; nothing to keep")
        with self._output_errors():
            self._output.mux(self._video.encode(None))
            self._copy_until(None)
            self._output.close()

    def _discard(self) -> None:
        # The file is deleted next, so that its trailer may fail to be written does not matter.
        with contextlib.suppress(av.FFmpegError, OSError):
            self._output.close()
        self._target.unlink(missing_ok=True)

    def _add_video(self) -> av.VideoStream:
        """The video stream: the source's time base, shape of pixels and colour tags."""
        info, source = self._info, self._source_video.codec_context
        codec = VIDEO_CODECS[self._target.suffix.lower()]
        stream = self._output.add_stream(codec, rate=info.average_rate, options=self._codec_options(codec))
        assert isinstance(stream, av.VideoStream)
        stream.time_base = info.time_base
        context = stream.codec_context
        context.time_base = info.time_base
        context.width, context.height = info.width, info.height
        context.pix_fmt = _pixel_format(info)
        context.thread_count = ENCODER_THREADS
        context.flags |= Flags.frame_duration
        context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
        context.colorspace, context.color_range = source.colorspace, source.color_range
        if _is_rgb(self._source_video):
            context.colorspace, context.color_range = _MATRIX_BT709, _RANGE_LIMITED
        aspect = self._source_video.sample_aspect_ratio
        if aspect:
            context.sample_aspect_ratio = 1 / aspect if info.rotation_deg % 180 else aspect
        return stream

    def _codec_options(self, codec: str) -> dict[str, str]:
        crf = str(self._settings.crf)
        if codec == "libx264":
            return {"crf": crf, "preset": self._settings.preset}
        return {"crf": crf, "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}

    def _add_copied(self) -> dict[int, Stream]:
        """Streams of the target for source streams that are copied, by source index."""
        copied: dict[int, Stream] = {}
        for stream in (*self._source.streams.audio, *self._source.streams.subtitles):
            try:
                twin = self._output.add_stream_from_template(stream)
            except (ValueError, av.FFmpegError) as error:
                if stream.type == "subtitle":
                    continue
                name = stream.codec_context.name if stream.codec_context else "unknown"
                raise OutputError(
                    f"{self._target}: {self._target.suffix} cannot hold the source's {name} audio; "
                    f"use a target that ends in .mkv"
                ) from error
            language = stream.metadata.get("language")
            twin.metadata.clear()
            if language:
                twin.metadata["language"] = language
            copied[stream.index] = twin
        return copied

    def _copy_until(self, pts: int | None) -> None:
        """Copy packets until the source's video has been read past ``pts``; all of them for None.

        Reading up to a decoding time of ``pts`` means that every video packet shown by then has been
        seen as well, and with it the duration of the frame at ``pts``.
        """
        if pts is not None and self._video_seen_dts is not None and self._video_seen_dts > pts:
            return
        for packet in self._readable_packets():
            if packet.stream_index != self._source_video.index:
                packet.stream = self._copied[packet.stream_index]
                with self._output_errors():
                    self._output.mux_one(packet)
                continue
            if packet.pts is not None and packet.duration:
                self._durations[packet.pts] = packet.duration
            if packet.dts is not None:
                self._video_seen_dts = packet.dts
                if pts is not None and packet.dts > pts:
                    return

    def _readable_packets(self) -> Iterator[av.Packet[Stream]]:
        """What is left of the source, without damaged places and flushing packets."""
        for packet in self._packets:
            if packet is None:
                self._unreadable_in_a_row += 1
                if self._unreadable_in_a_row > MAX_CONSECUTIVE_CORRUPT:
                    return
                continue
            self._unreadable_in_a_row = 0
            if packet.size:
                yield packet

    @contextlib.contextmanager
    def _output_errors(self) -> Iterator[None]:
        try:
            yield
        except OutputError:
            raise
        except (av.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError(
                f"{self._target}: cannot be written ({reason}); check folder, permissions and free space"
            ) from error


def _open_target(target: Path, info: VideoInfo) -> OutputContainer:
    """Open for writing; bit-exact flags keep the library's name and the date out of the file."""
    options = {"fflags": "+bitexact"}
    if target.suffix.lower() in {".mp4", ".mov"}:
        options["movflags"] = "+faststart"
        if info.time_base.numerator == 1:
            # The second one is the unit of the edit list, which holds the time of the first picture.
            options["video_track_timescale"] = str(info.time_base.denominator)
            options["movie_timescale"] = str(info.time_base.denominator)
    return av.open(str(target.resolve()), "w", container_options=options)


def _is_rgb(stream: av.VideoStream) -> bool:
    pixels = stream.codec_context.format
    return pixels is not None and (pixels.is_rgb or pixels.has_palette)


def _pixel_format(info: VideoInfo) -> str:
    """Chroma at half resolution needs even sizes; odd ones keep full chroma instead of being padded."""
    chroma = "yuv444p" if info.width % 2 or info.height % 2 else "yuv420p"
    return chroma if info.bit_depth <= 8 else f"{chroma}10le"


def _swscale_matrix(matrix: int) -> int:
    """The matrix to convert with; swscale has no constant-luminance BT.2020."""
    return _MATRIX_BT2020_NCL if matrix == _MATRIX_BT2020_CL else matrix
