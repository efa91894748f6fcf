"""Which files of a folder are jobs, in natural order, holding one folder's names at a time."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from vidanon.jobs.executors import PAUSE
from vidanon.jobs.executors.base import Pause

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv"),
    *(".flv", ".3gp", ".ogv", ".vob", ".gif"),
)
KEPT_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""Kinds of files that are written as what they were; others become .mp4."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is asked for.

    Attributes:
        path: where it is.
        relative: its path below the input folder, with forward slashes.
        size: bytes.
        mtime_ns: time of the last change, nanoseconds since 1970.
        problem: why it cannot be a job, or "".
    """

    path: Path
    relative: str
    size: int = 0
    mtime_ns: int = 0
    problem: str = ""

    @property
    def output(self) -> str:
        """Path of the result below the output folder: the same, in a container that can be written."""
        name = self.relative
        return name if name.lower().endswith(KEPT_SUFFIXES) else f"{name}.mp4"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which files of a folder are wanted.

    Attributes:
        include: glob patterns; empty means: whatever is named like a video.
        exclude: glob patterns that win over ``include``.
        skip: folders that are never entered (the output folder may lie in the input folder).
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    skip: tuple[Path, ...] = ()

    def wants(self, relative: str) -> bool:
        """Patterns with a slash are held against the whole relative path, others against the name."""
        name = relative.rpartition("/")[2]
        if name.startswith(".") or any(_matches(relative, pattern) for pattern in self.exclude):
            return False
        if self.include:
            return any(_matches(relative, pattern) for pattern in self.include)
        return Path(name).suffix.lower() in VIDEO_SUFFIXES


def _matches(relative: str, pattern: str) -> bool:
    subject = relative if "/" in pattern else relative.rpartition("/")[2]
    return fnmatchcase(subject.casefold(), pattern.casefold())


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``clip 9`` before ``clip 10``, and upper beside lower case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def scan(folder: Path, wanted: Filter, ignored: Callable[[str], None] | None = None) -> Iterator[Found]:
    """Yield the wanted files below a folder.

    Hidden files and folders are left out. Links to files are followed, links to folders are not: they may
    lead in circles, or out of what was asked for.

    Args:
        folder: where to look.
        wanted: which files.
        ignored: called with the relative path of every other file.
    """
    yield from _scan(folder, "", wanted, ignored or (lambda relative: None))


def _scan(folder: Path, prefix: str, wanted: Filter, ignored: Callable[[str], None]) -> Iterator[Found]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: (natural_key(entry.name), entry.name))
    except OSError as error:
        yield Found(folder, prefix.rstrip("/") or ".", problem=f"cannot be listed ({error.strerror})")
        return
    for entry in entries:
        relative, path = prefix + entry.name, Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            skipped = any(skip.exists() and path.samefile(skip) for skip in wanted.skip)
            if not entry.name.startswith(".") and not skipped:
                yield from _scan(path, f"{relative}/", wanted, ignored)
        elif wanted.wants(relative):
            yield _file(path, relative)
        else:
            ignored(relative)


def _file(path: Path, relative: str) -> Found:
    try:
        state = path.stat()
    except OSError as error:
        return Found(path, relative, problem=f"cannot be read ({error.strerror})")
    problem = ""
    if stat.S_ISDIR(state.st_mode):
        problem = "a link to a folder, which is not followed"
    elif not stat.S_ISREG(state.st_mode):
        problem = "not a file (a pipe, socket or device)"
    return Found(path, relative, state.st_size, state.st_mtime_ns, problem)


@dataclass(slots=True)
class Watcher:
    """Looks again and again; yields a file once it has stopped growing.

    Attributes:
        folder, wanted: as for :func:`scan`.
        settle_s: how long a file must have stayed as it is, seconds.
        clock: seconds, monotonic.
    """

    folder: Path
    wanted: Filter
    settle_s: float
    clock: Callable[[], float] = time.monotonic
    _since: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    _given: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Found | Pause]:
        while True:
            for found in scan(self.folder, self.wanted):
                if self._settled(found):
                    yield found
            yield PAUSE

    def _settled(self, found: Found) -> bool:
        state = (found.size, found.mtime_ns)
        if self._given.get(found.relative) == state:
            return False
        now = self.clock()
        *before, since = self._since.get(found.relative, (-1, -1, now))
        if tuple(before) != state:
            self._since[found.relative] = (*state, now)
            return False
        if now - since < self.settle_s:
            return False
        del self._since[found.relative]
        self._given[found.relative] = state
        return True
