"""Files that killed runs have left beside a result: they may show faces, so the next run removes them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

_CLOCK_S = 2.0  # start of the machine and of processes are known to the second


def remove_leftovers(final: Path) -> None:
    """Delete the temporary files and folders of ``final`` whose process is gone.

    What a living process on this machine is writing stays, and so does everything that belongs to another
    result. What cannot be deleted stays as well: it is no reason not to begin.

    Args:
        final: file or folder that is about to be made; its folder need not exist.
    """
    stem, suffix, name = re.escape(final.stem), re.escape(final.suffix), re.escape(final.name)
    ours = re.compile(rf"\.(?:{stem}\.([0-9]+)\.partial{suffix}(?:\.parts)?|{name}\.([0-9]+)\.parts?)")
    try:
        entries = list(final.parent.iterdir())
    except OSError:
        return
    for path in entries:
        match = ours.fullmatch(path.name)
        if match and _is_gone(int(match[1] or match[2]), path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


def _is_gone(process: int, path: Path) -> bool:
    """Whether no process of this number runs, or only one that began after the file was last written to."""
    try:
        written_s = path.lstat().st_mtime
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return Path("/proc/self/stat").exists()  # else this system does not say what runs
    except OSError:
        return False
    started_s = _boot_s() + int(fields[19]) / os.sysconf("SC_CLK_TCK")  # proc(5): starttime
    return started_s > written_s + _CLOCK_S


def _boot_s() -> float:
    """Return when the machine started, seconds since 1970."""
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("btime ")).split()[1])
