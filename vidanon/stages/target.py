"""Where a result goes: what its name may be, the hidden file it is written to, and how it gets its name."""

from __future__ import annotations

import mimetypes
import os
import shutil
from pathlib import Path

from vidanon.errors import OutputError
from vidanon.stages.stills import STILL_SUFFIXES, is_stills

VIDEO_CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
"""Target suffix to encoder; also the list of containers that can be written."""


def temporary_path(final: Path) -> Path:
    """Hidden file beside ``final`` with the same suffix, to write to before publishing."""
    return final.with_name(f".{final.stem}.{os.getpid()}.partial{final.suffix}")


def rejected_path(final: Path) -> Path:
    """Where a result stays that must not be published: ``clip.mp4`` -> ``clip.rejected.mp4``."""
    return final.with_name(f"{final.stem}.rejected{final.suffix}")


def discard(temporary: Path) -> None:
    """Delete what was written to a temporary path, if anything was."""
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)


def require_kind(source: Path, target: Path) -> None:
    """Make sure that the target is of a kind that can hold the source.

    Raises:
        OutputError: a folder for a file or the other way round, a picture for a video, or an unknown suffix.
    """
    suffix, known = target.suffix.lower(), list(VIDEO_CODECS)
    if is_stills(source):
        is_file_name = (mimetypes.guess_type(target.name)[0] or "").startswith(("video/", "image/"))
        if source.is_dir() and not is_file_name:
            if target.is_dir() and any(target.iterdir()):
                raise OutputError(
                    f"output {target} is a folder with something in it; choose a new one with -o"
                )
            if source.resolve() in target.resolve().parents:
                raise OutputError(f"output {target} lies within the input; choose a folder beside it with -o")
            return
        if not source.is_dir():
            known = list(STILL_SUFFIXES)
    if target.is_dir():
        raise OutputError(f"output {target} is a folder; give a file name with -o")
    if suffix not in known:
        raise OutputError(f"output {target}: the name must end in {', '.join(known)}; choose another with -o")


def publish(temporary: Path, final: Path) -> None:
    """Move a finished file or folder to its final name in one step, whole there even after a power cut.

    Raises:
        OutputError: the final name cannot be written.
    """
    try:
        _sync(temporary)
        temporary.replace(final)
        _sync(final.parent)
    except OSError as error:
        reason = error.strerror or "unwritable"
        raise OutputError(
            f"{final}: cannot be written ({reason}); free space or choose another target"
        ) from error


def _sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    if os.name != "posix":
        return  # elsewhere folders cannot be opened
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
