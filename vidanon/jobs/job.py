"""One file of a batch, in a worker: into a private folder first, then to its place in one step."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vidanon.errors import InputError, OutputError, UnsafeError
from vidanon.jobs.executors import Report
from vidanon.jobs.manifest import DONE, Record
from vidanon.jobs.scan import Found
from vidanon.private import write_private
from vidanon.settings import Settings

if TYPE_CHECKING:
    from vidanon.api import Summary
    from vidanon.types import IdentityCode

WORK_FOLDER = ".vidanon"
NAME_MAX_BYTES = 255  # of nearly all file systems

Faces = dict[int, "IdentityCode"]
Anonymize = Callable[[Path, Path, Path | None, Settings, Faces | None, Report], "Summary"]
"""(source, output, report or None, settings, faces by person or None, progress) -> summary."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file to be done.

    Attributes:
        found: the source.
        digest: of the settings, as the manifest records it.
        faces: the new face of each person where they were chosen for the whole folder.
    """

    found: Found
    digest: str
    faces: Faces | None = None


@dataclass(frozen=True, slots=True)
class FileWork:
    """Makes one file after the other; the work that a batch hands to an executor.

    Attributes:
        target: the output folder.
        settings: for every file.
        key: secret from which each file's own key is derived; b"" for a random one per file.
        anonymize: what makes a file.
    """

    target: Path
    settings: Settings
    key: bytes = field(repr=False)
    anonymize: Anonymize

    def __call__(self, job: Job, report: Report) -> Record:
        """Make a file and return its record.

        Raises:
            VidanonError: nothing was left at the output's place.
        """
        started, found = time.monotonic(), job.found
        if found.problem:
            raise InputError(f"{found.path}: {found.problem}; remove it or leave it out with --exclude")
        sha256 = file_digest(found.path)
        final = self.target / found.output
        if final.resolve() == found.path.resolve():
            raise OutputError(f"output {final} is the input itself; choose another output folder")
        folder = self._open_folder(job, sha256)
        page = None
        if self.settings.audit.enabled:
            page = folder / "report.html"
        output = folder / f"result{final.suffix.lower()}"
        try:
            summary = self.anonymize(found.path, output, page, self._settings_in(folder), job.faces, report)
        except UnsafeError as error:
            raise self._keep_rejected(error, output, page, final) from error
        _require_unchanged(found)
        _publish(output, final)
        report_name = self._publish_report(page, final)
        shutil.rmtree(folder)
        return Record(
            source=found.relative,
            size=found.size,
            mtime_ns=found.mtime_ns,
            sha256=sha256,
            settings=job.digest,
            status=DONE,
            output=found.output,
            report=report_name,
            frames=summary.frames,
            people=summary.people,
            replaced=summary.replaced,
            obscured=summary.obscured,
            seconds=round(time.monotonic() - started, 3),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            notes=summary.notes,
        )

    def _open_folder(self, job: Job, sha256: str) -> Path:
        """Return the job's private folder, with what an interrupted run of the same job left in it."""
        folder = self.target / WORK_FOLDER / _short_digest(job.found.relative)
        stamp = f"{sha256} {job.digest}"
        try:
            if folder.is_dir() and _read(folder / "job") != stamp:
                shutil.rmtree(folder)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (folder / "job").exists():
                key = (
                    hmac.digest(self.key, sha256.encode(), "sha256") if self.key else secrets.token_bytes(32)
                )
                write_private(folder / "key", key)
                write_private(folder / "job", stamp.encode())
        except OSError as error:
            raise OutputError(f"cannot write to {folder} ({error.strerror}); check the folder") from error
        return folder

    def _settings_in(self, folder: Path) -> Settings:
        identity = replace(self.settings.identity, key_file=str(folder / "key"))
        return replace(self.settings, identity=identity)

    def _keep_rejected(self, error: UnsafeError, output: Path, page: Path | None, final: Path) -> UnsafeError:
        """Move a refused result to where the user finds it, under a name that says so."""
        rejected = output.with_name(f"{output.stem}.rejected{output.suffix}")
        if not rejected.exists():
            return error
        kept = final.with_name(beside(final.stem, f".rejected{final.suffix}"))
        _publish(rejected, kept)
        self._publish_report(page, final)
        shutil.rmtree(output.parent)
        return UnsafeError(str(error).replace(str(rejected), str(kept)))

    def _publish_report(self, page: Path | None, final: Path) -> str:
        """Move the report and its JSON beside the output; return its path below the output folder."""
        if page is None or not page.exists():
            return ""
        place = final.with_name(beside(final.name, ".report.html"))
        for suffix in (".json", ".html"):
            if page.with_suffix(suffix).exists():
                _publish(page.with_suffix(suffix), place.with_suffix(suffix))
        return place.relative_to(self.target).as_posix()


def fetch_models(settings: Settings) -> None:
    """Fetch missing models once, before several workers would.

    Raises:
        ModelsError: one is missing and cannot be fetched.
    """
    from vidanon.api import ensure_models
    from vidanon.models.registry import ModelStore

    ensure_models(ModelStore(offline=settings.runtime.offline), settings.runtime.device)


def anonymize_file(
    source: Path, output: Path, page: Path | None, settings: Settings, faces: Faces | None, report: Report
) -> Summary:
    """Make one file with the real pipeline; see :data:`Anonymize`."""
    from vidanon import api
    from vidanon.jobs.executors.serial import SerialExecutor
    from vidanon.jobs.parts import render_in_parts

    # Finished parts stay in the job's folder, so that an interrupted job goes on with the next.
    draw = partial(render_in_parts, executor=SerialExecutor(), folder=output.parent / "parts")
    if faces is None:
        return api.anonymize(source, output, settings, progress=report, report=page, draw=draw)
    from vidanon.models.registry import ModelStore
    from vidanon.plan import analyse

    models = ModelStore(offline=settings.runtime.offline)
    api.ensure_models(models, settings.runtime.device)
    plan = analyse(source, settings, models, partial(report, "analyse"), lambda profiles: faces)
    return api.render_plan(source, plan, output, settings, models, report, page, draw)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path}: not readable ({error.strerror}); check the path on this machine"
        ) from error


def beside(name: str, ending: str) -> str:
    """Return ``name`` with an ending, shortened where the file system would refuse it."""
    if len(os.fsencode(name + ending)) <= NAME_MAX_BYTES:
        return name + ending
    tail = f"~{_short_digest(name)}{ending}"
    return os.fsencode(name)[: NAME_MAX_BYTES - len(tail)].decode("utf-8", "ignore") + tail


def _short_digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def _require_unchanged(found: Found) -> None:
    state = found.path.stat()
    if (state.st_size, state.st_mtime_ns) != (found.size, found.mtime_ns):
        raise InputError(f"{found.path}: changed while it was read; run again when it is complete")


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def kept_key(path: Path) -> bytes:
    """Return the random key of an interrupted run, or a new one that the next run will find."""
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


def _publish(path: Path, final: Path) -> None:
    """Move a file to its place, in folders that may have to be made.

    Raises:
        OutputError: its place cannot be written.
    """
    from vidanon.stages.target import publish

    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{final.parent}: cannot be made ({error.strerror}); free space or choose another target"
        ) from error
    publish(path, final)
