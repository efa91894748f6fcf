"""Compare the two files as files: frames, times, sound."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vidanon.audit.record import Check
from vidanon.errors import InputError
from vidanon.stages.fingerprint import audio_hashes
from vidanon.tally import Tally


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files one after another by name, hexadecimal."""
    digest = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def compare_containers(
    source: Path, output: Path, tally: Tally
) -> tuple[dict[str, tuple[str, str]], tuple[Check, ...]]:
    """Compare frames, times and sound; the sound of a damaged source is not compared.

    Args:
        source: the original.
        output: the result.
        tally: what decoding both gave.

    Returns:
        By name what the source and the output hold, and the checks.

    Raises:
        InputError: the sound of a sound file cannot be read.
    """
    from vidanon.stages.decode import probe

    before, after, damaged = probe(source), probe(output), tally.damaged
    sounds = [_sound(path, damaged) for path in (source, output)]
    container = {
        "frames": (str(tally.source_frames), str(tally.output_frames)),
        "picture": (f"{before.width}x{before.height}", f"{after.width}x{after.height}"),
        "frames per second": (f"{float(before.average_rate):.3f}", f"{float(after.average_rate):.3f}"),
        "video codec": (before.codec, after.codec),
        "bits": (str(before.bit_depth), str(after.bit_depth)),
        "audio streams": (str(before.audio_streams), str(after.audio_streams)),
        "audio sha256": (" ".join(sounds[0]) or "none", " ".join(sounds[1]) or "none"),
        "bytes": (str(_bytes(source)), str(_bytes(output))),
        "sha256": (file_sha256(source), file_sha256(output)),
    }
    if damaged:
        sound_detail = "not compared: the source is damaged"
    else:
        sound_detail = "the same packets" if sounds[0] == sounds[1] else "not the same packets"
    times = "every frame at its time" if not tally.pts_errors else f"{tally.pts_errors} frames moved in time"
    return container, (
        Check(
            "frames",
            tally.source_frames == tally.output_frames,
            f"{tally.output_frames} of {tally.source_frames} frames",
        ),
        Check("times", tally.pts_errors == 0, times),
        Check("audio", damaged or sounds[0] == sounds[1], sound_detail),
    )


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _sound(path: Path, damaged: bool) -> list[str]:
    try:
        return audio_hashes(path)
    except InputError:
        if not damaged:
            raise
        return ["not readable"]
