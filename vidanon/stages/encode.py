"""Writing video: new pictures, everything else copied packet by packet.

Time stamps and time base are the source's wherever the container allows it (.mp4 and .mov; Matroska and
WebM count in milliseconds by their specification). Rotation is already applied to the frames and is not
written again. Audio, subtitles, chapters and attachments are copied. Left out, and named in ``notes``:
metadata (place, device, dates, encoder; only languages stay), cover art and further cameras, which would
show the very faces that are to go, and data streams, which hold places and times.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.stream import AttachmentStream, Disposition, Stream
from av.video.reformatter import Interpolation, VideoReformatter

from vidanon.errors import OutputError
from vidanon.stages import stills
from vidanon.stages.decode import (
    MAX_CONSECUTIVE_CORRUPT,
    first_picture,
    open_source,
    packets,
    side_data,
    video_stream,
)
from vidanon.stages.emphasis import Emphasis
from vidanon.stages.hdr import x264_params
from vidanon.stages.target import VIDEO_CODECS, require_kind
from vidanon.types import Float, Frame, VideoInfo, eight_bit

if TYPE_CHECKING:
    from vidanon.settings import EncodeSettings

log = logging.getLogger("vidanon")

KEY_EVERY_FRAMES = 60
"""From one key picture to the next is drawn anew what the audit sends back; 60 instead of 250 cost 5 to 10 %
of size."""

ENCODER_THREADS = 2

_FROM_RGB = Interpolation.BICUBIC | Interpolation.ACCURATE_RND

# AVColorSpace and AVColorRange (ISO/IEC 23091-2 code points and FFmpeg's pixfmt.h).
_MATRIX_BT709 = 1
_MATRIX_BT2020_NCL = 9
_MATRIX_BT2020_CL = 10
_RANGE_LIMITED = 1
# AVFieldOrder: which field comes first; 0 and 1 are unknown and progressive.
_FIELD_ORDERS = {2: "tff=1", 3: "bff=1", 4: "tff=1", 5: "bff=1"}
# Written by every muxer, or read by this module itself: nothing that identifies.
_PLAIN_TAGS = {"major_brand", "minor_version", "compatible_brands", "language", "handler_name", "vendor_id"}
_PLAIN_TAGS |= {"duration", "bps", "number_of_frames", "number_of_bytes", "filename", "mimetype", "rotate"}


def open_encoder(
    source: Path, info: VideoInfo, target: Path, settings: EncodeSettings
) -> Encoder | stills.StillsEncoder:
    """Make the encoder for a target: pictures for pictures, else a video.

    Raises:
        OutputError: the target cannot hold the source, or is the source.
    """
    require_kind(source, target)
    if target.exists() and target.samefile(source):
        raise OutputError(f"{target}: is the source itself; choose another target")
    if stills.is_stills(source) and target.suffix.lower() not in VIDEO_CODECS:
        return stills.StillsEncoder(source, info, target, settings)
    return Encoder(source, info, target, settings)


class Encoder:
    """Writes one video beside its source; a context manager.

    Leaving it normally flushes the encoder, copies what is left of audio and subtitles and closes the
    file. Leaving it by an exception deletes the file. Audio and subtitles are copied as far as the
    pictures have come, so memory does not grow with the length of the clip.

    Attributes:
        notes: what of the source is not in the result; complete once the encoder was entered.
    """

    def __init__(
        self, source: Path, info: VideoInfo, target: Path, settings: EncodeSettings, copies: bool = True
    ) -> None:
        """Remember what to write; nothing is opened yet.

        Args:
            source: what ``info`` was probed from; audio and subtitles come from it.
            info: the source's description; frames must have its size and time base.
            target: file to write; its suffix (.mp4, .mkv, .mov, .webm) chooses the container.
            settings: ``crf`` and ``preset`` of the video encoder, ``small_faces``, ``keep_metadata``.
            copies: False leaves out everything but the pictures.
        """
        self._copies = copies
        self.notes: list[str] = []
        # One picture of a folder stands for all: it has the colours, and no sound.
        self._source_path = stills.pictures_of(source)[0]
        self._info, self._target, self._settings = info, target, settings
        self._frames = 0
        # Time stamps to durations, as the source states them; pictures of a folder last one unit each.
        self._durations = dict.fromkeys(range(info.frame_count), 1) if stills.is_stills(source) else {}
        self._from_rgb = VideoReformatter()
        self._emphasis = Emphasis(info.time_base, settings.small_faces)

    def __enter__(self) -> Encoder:
        with contextlib.ExitStack() as stack:
            self._source = stack.enter_context(open_source(self._source_path))
            self._source_video = video_stream(self._source, self._source_path)
            with self._output_errors():
                self._output = _open_target(self._target, self._info, self._settings.keep_metadata)
                stack.callback(self._discard)
                self._video = self._add_video()
                self._copied = self._add_copied() if self._copies else {}
                if self._copies:
                    self._add_chapters_and_attachments()
                    self._carry_metadata()
                self._output.start_encoding()
            stack.pop_all()
        streams = [self._source_video, *(self._source.streams[index] for index in self._copied)]
        self._packets = packets(self._source, *streams)
        self._unreadable_in_a_row = 0
        self._video_seen_dts: int | None = None
        self._video_seen_pts = self._last_duration = 0
        return self

    def write(self, frame: Frame, faces: Sequence[Float] = ()) -> None:
        """Encode one picture at its own time.

        Args:
            frame: uint8 RGB, ``info``'s height and width.
            faces: float32 (4,) each, boxes, pixels; the small ones among them get more of the bits.

        Raises:
            OutputError: the target cannot be written.
        """
        if frame.image.shape != (self._info.height, self._info.width, 3):
            raise ValueError(f"frame {frame.index}: shape {frame.image.shape} does not fit {self._info}")
        self._copy_until(frame.pts)
        context = self._video.codec_context
        picture = self._from_rgb.reformat(
            _as_picture(frame),
            format=context.pix_fmt,
            dst_colorspace=_swscale_matrix(context.colorspace),
            dst_color_range=context.color_range or None,
            interpolation=_FROM_RGB,
            threads=1,
        )
        if context.name == "libx264":
            picture = self._emphasis.marked(picture, faces)
        picture.colorspace, picture.color_range = context.colorspace, context.color_range
        picture.color_primaries, picture.color_trc = context.color_primaries, context.color_trc
        picture.pts, picture.time_base = frame.pts, self._info.time_base
        picture.duration = self._duration(frame.pts)
        with self._output_errors():
            self._output.mux(self._video.encode(picture))
        self._frames += 1

    def _duration(self, pts: int) -> int:
        """How long a picture is shown; of reordered ones MP4 has decoding times, but for the last decoded."""
        duration, later = self._durations.pop(pts, 0), self._video_seen_pts - pts
        return min(duration, later) if later > 0 else duration if later else self._last_duration

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.closing(self._source):
            if kind is not None:
                self._discard()
                return
            try:
                self._finish()
            except BaseException:
                self._discard()
                raise

    def _finish(self) -> None:
        if self._frames == 0:
            raise OutputError(f"{self._target}: not one frame was written; nothing to keep")
        with self._output_errors():
            self._flush()
            if self._copies:
                self._copy_until(None)
            self._output.close()

    def _flush(self) -> None:
        self._output.mux(self._video.encode(None))

    def _discard(self) -> None:
        # The file is deleted next, so that its trailer may fail to be written does not matter.
        with contextlib.suppress(av.FFmpegError, OSError):
            self._output.close()
        self._target.unlink(missing_ok=True)

    def _add_video(self) -> av.VideoStream:
        """The video stream: the source's time base, shape of pixels and colour tags."""
        info, source = self._info, self._source_video.codec_context
        codec = VIDEO_CODECS[self._target.suffix.lower()]
        options = self._codec_options(codec)
        stream = self._output.add_stream(codec, rate=info.average_rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.time_base = info.time_base
        context = stream.codec_context
        context.time_base = info.time_base
        context.width, context.height = info.width, info.height
        context.pix_fmt = _pixel_format(info)
        if info.bit_depth > 10:
            self.notes.append(f"{info.bit_depth} bits per colour became 10")
        if info.width % 2 or info.height % 2:
            self.notes.append(
                "odd size: written with full colour resolution (4:4:4), which some players refuse"
            )
        context.thread_count = ENCODER_THREADS
        context.flags |= Flags.frame_duration
        context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
        context.colorspace, context.color_range = source.colorspace, source.color_range
        if _is_rgb(self._source_video):
            context.colorspace, context.color_range = _MATRIX_BT709, _RANGE_LIMITED
        aspect = self._source_video.sample_aspect_ratio
        if aspect:
            context.sample_aspect_ratio = 1 / aspect if info.rotation_deg % 180 else aspect
        log.info("writing %s: %s, %s, %s", self._target, codec, context.pix_fmt, options)
        return stream

    def _codec_options(self, codec: str) -> dict[str, str]:
        common = {"crf": str(self._settings.crf), "g": str(KEY_EVERY_FRAMES)}
        first = first_picture(self._source_path)
        self.notes += _lost_of(first)
        if codec != "libx264":
            return common | {"b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}
        extra = x264_params(
            side_data(first, "MASTERING_DISPLAY_METADATA"), side_data(first, "CONTENT_LIGHT_LEVEL")
        )
        order = self._source_video.codec_context.field_order
        if first.interlaced_frame and order in _FIELD_ORDERS:
            extra.append(_FIELD_ORDERS[order])
        if extra:
            common["x264-params"] = ":".join(extra)
        # Without it, as in the fastest preset, all blocks are of one quality.
        return common | {"preset": self._settings.preset, "aq-mode": "variance"}

    def _add_copied(self) -> dict[int, Stream]:
        """Streams of the target for source streams that are copied, by source index."""
        copied: dict[int, Stream] = {}
        for stream in (*self._source.streams.audio, *self._source.streams.subtitles):
            try:
                twin = self._output.add_stream_from_template(stream)
            except (ValueError, av.FFmpegError) as error:
                if stream.type == "subtitle":
                    self.notes.append(f"subtitles left out: {self._target.suffix} cannot hold them, .mkv can")
                    continue
                name = stream.codec_context.name if stream.codec_context else "unknown"
                raise OutputError(
                    f"{self._target}: {self._target.suffix} cannot hold the source's {name} audio; "
                    f"use a target that ends in .mkv"
                ) from error
            twin.metadata.clear()
            twin.metadata.update(self._kept(stream.metadata))
            copied[stream.index] = twin
        return copied

    def _add_chapters_and_attachments(self) -> None:
        """Copy chapters and, into Matroska, attachments such as fonts; note the streams that stay behind."""
        chapters = self._source.chapters()
        if chapters:
            self._output.set_chapters(chapters)
        left: dict[str, int] = {}
        for stream in self._source.streams:
            if isinstance(stream, AttachmentStream):
                mime = stream.mimetype or "application/octet-stream"
                if self._target.suffix.lower() == ".mkv" and not mime.startswith(("image/", "video/")):
                    self._output.add_attachment(stream.metadata.get("filename", "file"), mime, stream.data)
                    continue
                kind = "attachment"
            elif stream.type == "video" and stream.index != self._source_video.index:
                cover = stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
                kind = "cover picture" if cover else "further video stream"
            elif stream.type == "data" and not chapters:
                kind = "data stream"
            else:
                continue
            left[kind] = left.get(kind, 0) + 1
        self.notes += [f"left out: {count} {kind}{'s'[: count > 1]}" for kind, count in left.items()]

    def _carry_metadata(self) -> None:
        """Keep metadata if asked to; otherwise note the names of what is removed."""
        self._output.metadata.update(self._kept(self._source.metadata))
        self._video.metadata.update(self._kept(self._source_video.metadata))
        if not self._settings.keep_metadata:
            tags = [self._source.metadata, *(stream.metadata for stream in self._source.streams)]
            removed = {name.lower() for group in tags for name in group} - _PLAIN_TAGS
            names = sorted(name for name in removed if not name.startswith("_statistics"))
            if names:
                self.notes.append(f"metadata removed: {', '.join(names)}")

    def _kept(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """Languages, or all metadata where the user wants it kept."""
        return {k: v for k, v in metadata.items() if k == "language" or self._settings.keep_metadata}

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
                self._durations[packet.pts] = self._last_duration = packet.duration
                self._video_seen_pts = max(self._video_seen_pts, packet.pts)
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


def _open_target(target: Path, info: VideoInfo, all_tags: bool) -> OutputContainer:
    """Open for writing; bit-exact flags keep the library's name and the date out of the file."""
    options = {"fflags": "+bitexact"}
    if target.suffix.lower() in {".mp4", ".mov"}:
        options["movflags"] = "+faststart" + all_tags * "+use_metadata_tags"
        if info.time_base.numerator == 1:
            # The second one is the unit of the edit list, which holds the time of the first picture.
            options["video_track_timescale"] = str(info.time_base.denominator)
            options["movie_timescale"] = str(info.time_base.denominator)
    return av.open(str(target.resolve()), "w", container_options=options)


def _as_picture(frame: Frame) -> av.VideoFrame:
    """The frame for the encoder; deep pixels stay deep where nothing was drawn."""
    if frame.deep is None:
        return av.VideoFrame.from_ndarray(frame.image, format="rgb24")
    drawn = (frame.image != eight_bit(frame.deep)).any(axis=2, keepdims=True)
    merged = np.where(drawn, frame.image.astype(np.uint16) * np.uint16(257), frame.deep)
    return av.VideoFrame.from_ndarray(merged, format="rgb48le")


def _lost_of(picture: av.VideoFrame) -> list[str]:
    """What a picture holds that the result cannot."""
    lost = []
    alpha = any(component.is_alpha for component in picture.format.components)
    if alpha and picture.reformat(format="rgba").to_ndarray()[..., 3].min() < 255:
        lost.append("transparency removed")
    if side_data(picture, "DYNAMIC_HDR_PLUS") or side_data(picture, "DOVI_METADATA"):
        lost.append("dynamic HDR metadata removed (HDR10+ or Dolby Vision); HDR10 stays")
    return lost


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
