"""Where in a video file decoding can begin."""

from __future__ import annotations

from pathlib import Path

from vidanon.stages.decode import open_source, packets, video_stream

_SEEKABLE = {"mp4", "matroska"}


def key_pictures(path: Path, frames: int) -> list[tuple[int, int]]:
    """Return index and time stamp of the pictures at which decoding can begin, in order.

    Only packets are read, not decoded. Empty where their number does not tell the index of a picture:
    another number of packets than ``frames``, damage, missing or repeated time stamps, or a kind of file in
    which one cannot seek exactly.

    Raises:
        InputError: as :func:`open_source`.
    """
    stamps: list[int] = []
    keys: list[int] = []
    with open_source(path) as container:
        if not set(container.format.name.split(",")) & _SEEKABLE:
            return []
        for packet in packets(container, video_stream(container, path)):
            if packet is None or packet.is_corrupt:
                return []
            if packet.size == 0:
                break
            if packet.is_discard:
                continue
            if packet.pts is None:
                return []
            stamps.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    index = {pts: number for number, pts in enumerate(sorted(stamps))}
    return [(index[pts], pts) for pts in sorted(keys)] if len(index) == len(stamps) == frames else []
