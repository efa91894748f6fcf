"""Tell files apart, and notice that one changes while it is read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vidanon.errors import InputError
from vidanon.stages.stills import pictures_of

_SAMPLES, _SAMPLE_BYTES = 64, 65536


def fingerprint(path: Path) -> str:
    """SHA-256 over the sizes of a file or the pictures of a folder and samples all over them.

    A plan must not be drawn on another video; this tells them apart and reads 4 MiB of a file at most.

    Raises:
        InputError: not readable.
    """
    digest = hashlib.sha256()
    try:
        for file in pictures_of(path):
            size = file.stat().st_size
            digest.update(size.to_bytes(8, "little"))
            with file.open("rb") as stream:
                for start in sorted({size * i // _SAMPLES for i in range(_SAMPLES)}):
                    stream.seek(start)
                    digest.update(stream.read(_SAMPLE_BYTES))
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror}); check its rights") from error
    return digest.hexdigest()


def file_state(path: Path) -> list[tuple[int, int]]:
    """Sizes and times of change of what is read; [] for what cannot be looked at (probing says why)."""
    try:
        found = [file.stat() for file in pictures_of(path)]
    except OSError:
        return []
    return [(stat.st_size, stat.st_mtime_ns) for stat in found]


def audio_hashes(path: Path) -> list[str]:
    """Return one SHA-256 per audio stream, over its packets as they are stored.

    Raises:
        InputError: the audio cannot be read.
    """
    import ffmpeg
    import imageio_ffmpeg

    from vidanon.stages.decode import probe

    if probe(path).audio_streams == 0:
        return []
    stream = ffmpeg.input(str(path)).output("pipe:", map="0:a", c="copy", f="streamhash", hash="sha256")
    try:
        text, _ = stream.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error as error:
        raise InputError(f"{path}: its audio cannot be read; check the file with a player") from error
    return [line.rpartition("=")[2] for line in text.decode().split()]
