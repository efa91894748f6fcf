"""What became of every file: ``manifest.jsonl``, one line per finished job, the last one counts."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vidanon import __version__
from vidanon.errors import OutputError
from vidanon.settings import Settings

NAME = "manifest.jsonl"
DONE, FAILED = "done", "failed"
MODELS_FOLDER = Path(__file__).parents[1] / "models"


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the manifest.

    Attributes:
        source: path below the input folder.
        size, mtime_ns, sha256: state of the source; the hash is "" if it could not be read.
        settings: digest of everything else that the result depends on.
        status: ``done`` or ``failed``.
        exit_code: how ``vidanon anonymize`` would have ended on this file.
        error: one line, or "".
        output, report: paths below the output folder, or "".
        frames, people, replaced, obscured: see :class:`vidanon.api.Summary`.
        seconds: wall time of the job.
        finished: UTC, ISO 8601.
        version: of vidanon.
        notes: what a reader should know.
    """

    source: str
    size: int
    mtime_ns: int
    sha256: str
    settings: str
    status: str
    exit_code: int = 0
    error: str = ""
    output: str = ""
    report: str = ""
    frames: int = 0
    people: int = 0
    replaced: int = 0
    obscured: int = 0
    seconds: float = 0.0
    finished: str = ""
    version: str = __version__
    notes: tuple[str, ...] = ()


def names_a_file(value: object) -> bool:
    """Whether the value of an option is the path of a file."""
    return isinstance(value, str) and "\0" not in value and value != "" and os.path.isfile(value)  # noqa: PTH113


def product_digest() -> str:
    """Return a digest of what this installation makes results with: its version, weights and thresholds.

    The networks that are fetched count by the checksums in the registry, which nothing else gets past.
    """
    digest = hashlib.sha256(__version__.encode())
    tables = [MODELS_FOLDER / "registry.toml", MODELS_FOLDER / "thresholds.json"]
    for path in [*tables, *sorted((MODELS_FOLDER / "weights").iterdir())]:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def settings_digest(settings: Settings, extra: str = "") -> str:
    """Return a digest of what decides the result: vidanon itself, and all settings but where and how fast.

    Of files that are named (a key, a picture of a person) the content counts, not the name.
    """
    values = settings.as_dict()
    values["runtime"] = {"device": values["runtime"]["device"]}
    for options in values.values():
        for option, value in options.items():
            if names_a_file(value):
                content = Path(str(value)).read_bytes()
                options[option] = hashlib.sha256(b"vidanon settings" + content).hexdigest()
    text = json.dumps([product_digest(), values, extra], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Manifest:
    """The records of a folder; a context manager.

    Lines are appended with one write each and synced, so that a killed run leaves at most one torn line,
    which is skipped. The index is a temporary SQLite table, which keeps to a fixed amount of memory.

    Attributes:
        torn: number of lines that could not be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.torn = 0

    def __enter__(self) -> Manifest:
        self._index = sqlite3.connect("")
        self._index.execute("create table line (source blob primary key, text blob) without rowid")
        try:
            with self._path.open("rb") as file:
                for line in file:
                    self._learn(line)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise OutputError(f"{self._path} cannot be read ({error.strerror}); check it") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._index.close()

    def _learn(self, line: bytes) -> None:
        try:
            record = _parse(line)
        except (ValueError, TypeError, RecursionError):
            self.torn += 1
            return
        self._index.execute("replace into line values (?, ?)", (_key(record.source), line))

    def get(self, source: str) -> Record | None:
        """Return the last record of a source."""
        row = self._index.execute("select text from line where source = ?", (_key(source),)).fetchone()
        return _parse(row[0]) if row else None

    def __iter__(self) -> Iterator[Record]:
        """Yield the last record of every source, by name."""
        for row in self._index.execute("select text from line order by source"):
            yield _parse(row[0])

    def append(self, record: Record) -> None:
        """Add a line; it is on the disk when this returns.

        Raises:
            OutputError: it cannot be written.
        """
        line = json.dumps(asdict(record)).encode() + b"\n"
        try:
            with self._path.open("ab+", buffering=0) as file:
                if file.tell() and not _ends_a_line(file.fileno()):
                    line = b"\n" + line
                file.write(line)
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written ({error.strerror}); free space") from error
        self._learn(line.lstrip(b"\n"))


def _key(source: str) -> bytes:
    return os.fsencode(source)


_KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "tuple[str, ...]": list,
}


def _parse(line: bytes) -> Record:
    """Read a line; ValueError or TypeError where it is none of ours."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise TypeError("not a record")
    known = {}
    for option in fields(Record):
        if option.name in values:
            if not isinstance(values[option.name], _KINDS[str(option.type)]):
                raise TypeError(f"{option.name} is of the wrong kind")
            known[option.name] = values[option.name]
    return Record(**known | {"notes": tuple(known.get("notes", ()))})


def _ends_a_line(descriptor: int) -> bool:
    return os.pread(descriptor, 1, os.fstat(descriptor).st_size - 1) == b"\n"
