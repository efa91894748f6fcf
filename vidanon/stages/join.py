"""Joining the finished parts of a video packet by packet, with everything else of the source beside them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from vidanon.errors import OutputError
from vidanon.settings import EncodeSettings
from vidanon.stages.encode import Encoder
from vidanon.types import VideoInfo


@dataclass(frozen=True, slots=True)
class Piece:
    """A file with pictures, or a part of one.

    Attributes:
        path: the file.
        first: time stamp of the first picture, a key picture, in the file's units; None for the beginning.
        stop: time stamp of the key picture that comes after the last one; None for the end.
        late: by how much its time stamps lie behind the source's, in its own units: Matroska's begin where
            decoding does.
    """

    path: Path
    first: int | None = None
    stop: int | None = None
    late: int = 0

    @staticmethod
    def suffix_for(target: Path) -> str:
        """Return the kind of file to write a piece to that is to be joined into ``target``."""
        return ".webm" if target.suffix.lower() == ".webm" else ".mp4"


class Joiner(Encoder):
    """Writes parts that were encoded with the same settings, one after the other; a context manager.

    Decoding times are made anew over the whole: those of the parts overlap where the frame rate varies.
    """

    def __init__(
        self, source: Path, info: VideoInfo, target: Path, settings: EncodeSettings, parts: Sequence[Piece]
    ) -> None:
        """Remember what to write; see :class:`vidanon.stages.encode.Encoder`.

        Args:
            source: as there.
            info: as there.
            target: as there.
            settings: as there.
            parts: pictures that follow one another in time, each beginning with a key frame.
        """
        super().__init__(source, info, target, settings)
        self._parts = parts

    def join(self) -> None:
        """Copy all pictures.

        Raises:
            OutputError: the parts do not follow one another, or the target cannot be written.
        """
        stamps = [pts for _, pts in _packets(self._parts)]
        ordered = sorted(stamps)
        if len(set(ordered)) != len(ordered):
            raise OutputError(f"{self._target}: the parts overlap; delete them and run again")
        # A picture is decoded so many places before its turn at most (ISO/IEC 14496-10, picture reordering).
        delay = max(place - bisect_left(ordered, pts) for place, pts in enumerate(stamps))
        step = ordered[1] - ordered[0] if len(ordered) > 1 else 1
        for place, (packet, pts) in enumerate(_packets(self._parts)):
            ticks = self._info.time_base / packet.time_base
            source_pts = round(pts / ticks)
            self._copy_until(source_pts)
            packet.duration = round(self._duration(source_pts) * ticks) or packet.duration
            early = place - delay
            packet.dts = ordered[early] if early >= 0 else ordered[0] + early * step
            packet.stream = self._video
            with self._output_errors():
                self._output.mux_one(packet)
            self._frames += 1

    def _add_video(self) -> av.VideoStream:
        with av.open(str(self._parts[0].path)) as first:
            stream = self._output.add_stream_from_template(first.streams.video[0])
        assert isinstance(stream, av.VideoStream)
        stream.time_base = self._info.time_base
        return stream

    def _flush(self) -> None:
        """Nothing is held back."""


def _packets(parts: Sequence[Piece]) -> Iterator[tuple[av.Packet[av.VideoStream], int]]:
    """Yield every packet with its time stamp."""
    for part in parts:
        with av.open(str(part.path)) as container:
            stream = container.streams.video[0]
            if part.first is not None:
                container.seek(part.first, stream=stream)
            for packet in container.demux(stream):
                if not packet.size or packet.pts is None:
                    continue
                if part.stop is not None and packet.is_keyframe and packet.pts >= part.stop:
                    break  # groups of pictures are closed: nothing that is decoded later is shown earlier
                if part.first is None or packet.pts >= part.first:
                    packet.pts -= part.late
                    yield packet, packet.pts
