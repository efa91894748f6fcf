"""A folder of videos: find, skip what is done, make the rest, write down what became of each."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from vidanon.errors import InputError, OutputError, SettingsError, VidanonError
from vidanon.jobs.executors import KINDS, PAUSE, Executor, Failure, make_executor
from vidanon.jobs.executors.base import POLL_S, Pause, Watch
from vidanon.jobs.job import (
    NAME_MAX_BYTES,
    WORK_FOLDER,
    Anonymize,
    Faces,
    FileWork,
    Job,
    anonymize_file,
    fetch_models,
    file_digest,
    kept_key,
)
from vidanon.jobs.manifest import DONE, FAILED, NAME, Manifest, Record, names_a_file, settings_digest
from vidanon.jobs.scan import Filter, Found, Watcher, scan
from vidanon.settings import Settings, override

SKIPPED_AT_ONCE = 1000
NEW, SKIPPED_DONE, SKIPPED_FAILED = "new", "already done", "failed before"


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a folder is worked through.

    Attributes:
        include, exclude: glob patterns, see :class:`vidanon.jobs.scan.Filter`.
        jobs: files at a time; 0 for one per two cores.
        executor: ``serial``, ``processes`` or ``ray``.
        address: of a Ray cluster, see :func:`vidanon.jobs.executors.make_executor`.
        gpus: share of a GPU per job that Ray reserves.
        link: ``video`` (faces are chosen per file) or ``batch`` (one person has one face in all files).
        retry_failed: do again what failed with the same settings.
        force: do everything again.
        stop_on_error: stop at the first failure.
        watch: never end; take new files when they have stopped growing.
        settle_s: how long that must be, seconds.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    jobs: int = 0
    executor: str = "processes"
    address: str = "local"
    gpus: float = 0.0
    link: str = "video"
    retry_failed: bool = False
    force: bool = False
    stop_on_error: bool = False
    watch: bool = False
    settle_s: float = 10.0

    def __post_init__(self) -> None:
        if self.executor not in KINDS:
            raise SettingsError(f"executor '{self.executor}': choose one of {', '.join(KINDS)}")
        if self.link not in ("video", "batch"):
            raise SettingsError(f"link '{self.link}': choose one of video, batch")
        if self.link == "batch" and self.watch:
            raise SettingsError("--link batch needs all files at once, so it does not go with --watch")
        if self.jobs < 0 or self.settle_s < 0 or self.gpus < 0:
            raise SettingsError("jobs, gpus and settle_s must not be negative")


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of one file.

    Attributes:
        record: as in the manifest.
        fresh: False if it was skipped because an earlier run had come to this result.
        trace: the traceback of an unexpected error, or "".
    """

    record: Record
    fresh: bool = True
    trace: str = ""


@dataclass(slots=True)
class Tally:
    """What a batch has come to so far; constant size."""

    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    ignored: int = 0
    torn_lines: int = 0
    failures: list[str] = field(default_factory=list)


def threads_per_job(jobs: int, cores: int | None = None) -> int:
    """Return how many threads a job may use so that all jobs together fill the cores and no more."""
    return max(1, (cores or available_cores()) // max(1, jobs))


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Batch:
    """One run over a folder. Make it, then iterate over :meth:`run` to the end."""

    def __init__(
        self,
        source: Path,
        target: Path,
        settings: Settings | None = None,
        options: BatchOptions | None = None,
        anonymize: Anonymize | None = None,
    ) -> None:
        """Check the folders; nothing is written yet.

        Args:
            source: folder with videos.
            target: folder for the results; may lie in ``source``.
            settings: for every file.
            options: how to go about it.
            anonymize: what makes one file; default the pipeline, whose models are fetched first.

        Raises:
            InputError: the source is no folder that can be read.
            OutputError: the target is the source, lies around it, or is no folder.
            SettingsError: the key file cannot be used, or there is a cast, which is for single files.
        """
        self.source, self.target = Path(source).absolute(), Path(target).absolute()
        self.options = options or BatchOptions()
        self.jobs = self.options.jobs or max(1, available_cores() // 2)
        if self.options.executor == "serial":
            self.jobs = 1
        settings = _with_absolute_paths(settings or Settings())
        if settings.identity.cast or settings.identity.participant:
            raise SettingsError("--cast is for single files; in a folder, --link batch keeps people's faces")
        workers = settings.runtime.workers
        if self.options.executor != "ray":  # else they share the cores of other machines
            workers = min(workers, threads_per_job(self.jobs))
        self.settings = replace(settings, runtime=replace(settings.runtime, workers=workers))
        self._anonymize = anonymize
        self.tally = Tally()
        _check_folders(self.source, self.target)
        self._key = _load_key(settings)
        self._filter = Filter(self.options.include, self.options.exclude, (self.target,))

    def preview(self) -> Iterator[tuple[Found, str]]:
        """Yield every file with ``new``, ``already done``, ``failed before`` or its problem."""
        digest = self._digest()
        with Manifest(self.target / NAME) as manifest:
            for found in scan(self.source, self._filter, self._ignore):
                state = found.problem or self._name_problem(found)
                yield found, state or self._earlier(found, digest, manifest)[1]
            self.tally.torn_lines = manifest.torn

    def run(self, watch: Watch[Job] | None = None) -> Iterator[BatchOutcome]:
        """Do the work; yield one outcome per file, skipped ones included.

        Args:
            watch: called with (job, pass, frames done, frames in all) as jobs advance.

        Raises:
            OutputError: the target or the manifest cannot be written, or another batch writes there.
            VidanonError: the executor cannot be started, or the models cannot be fetched.
        """
        with ExitStack() as stack:
            stack.enter_context(_locked(self.target))
            manifest = stack.enter_context(Manifest(self.target / NAME))
            self.tally.torn_lines = manifest.torn
            executor = make_executor(
                self.options.executor,
                self.jobs,
                self.settings.runtime.workers,
                self.options.gpus,
                self.options.address,
            )
            yield from self._run(executor, manifest, watch)
        if not self.options.stop_on_error or not self.tally.failed:
            _remove_work_folder(self.target)

    def _run(
        self, executor: Executor, manifest: Manifest, watch: Watch[Job] | None
    ) -> Iterator[BatchOutcome]:
        work = FileWork(self.target, self.settings, self._key, self._anonymize or anonymize_file)
        skipped: list[BatchOutcome] = []
        todo = self._todo(manifest, skipped, executor)
        first = None
        for first in todo:  # no worker is started before there is something to do
            yield from _emptied(skipped)
            if isinstance(first, Job):
                break
            if self.options.watch:
                time.sleep(POLL_S)
        yield from _emptied(skipped)
        if not isinstance(first, Job):
            return
        if self._anonymize is None:
            fetch_models(self.settings)
        outcomes = executor.imap(work, chain([first], todo), watch)
        for outcome in outcomes:
            yield from _emptied(skipped)
            if outcome.failure is None:
                assert outcome.value is not None, "an outcome has a value or a failure"
                result = BatchOutcome(outcome.value)
            else:
                record = _failed(outcome.item, outcome.failure)
                result = BatchOutcome(record, trace=outcome.failure.trace)
            manifest.append(result.record)
            self._count(result)
            yield result
            if self.options.stop_on_error and result.record.status == FAILED:
                outcomes.close()  # type: ignore[attr-defined]
                return
        yield from _emptied(skipped)

    def _todo(
        self, manifest: Manifest, skipped: list[BatchOutcome], executor: Executor
    ) -> Iterator[Job | Pause]:
        """Yield the jobs; what needs none goes to ``skipped``."""
        digest, faces, problems = self._digest(), dict[str, Faces](), dict[str, str]()
        if self.options.link == "batch":
            faces, problems = self._link(executor, digest, manifest)
        for found in self._found():
            if isinstance(found, Pause):
                yield found
                continue
            self.tally.total += 1
            problem = found.problem or problems.get(found.relative, "") or self._name_problem(found)
            earlier, state = self._earlier(found, digest, manifest)
            if earlier is not None and (not problem or state == SKIPPED_FAILED):
                outcome = BatchOutcome(earlier, fresh=False)
                self._count(outcome)
                skipped.append(outcome)
                if len(skipped) >= SKIPPED_AT_ONCE:
                    yield PAUSE  # so that the caller hears of them and memory stays as it is
                continue
            yield Job(replace(found, problem=problem), digest, faces.get(found.relative))

    def _digest(self) -> str:
        """Return the digest of everything but the source that a result depends on."""
        extra = ""
        if self.options.link == "batch":
            from vidanon.jobs.link import set_digest

            extra = set_digest(list(scan(self.source, self._filter)))
        return settings_digest(self.settings, extra)

    def _link(
        self, executor: Executor, digest: str, manifest: Manifest
    ) -> tuple[dict[str, Faces], dict[str, str]]:
        """Choose the faces of the whole folder, unless all of it is done; say for which files it failed."""
        from vidanon.jobs.link import link_people, survey

        files = [found for found in scan(self.source, self._filter) if not found.problem]
        if all(self._earlier(found, digest, manifest)[1] != NEW for found in files):
            return {}, {}
        fetch_models(self.settings)
        key = self._key or kept_key(self.target / WORK_FOLDER / "key")
        people, problems = survey(files, executor, self.settings)
        return link_people(people, key), problems

    def _found(self) -> Iterable[Found | Pause]:
        if self.options.watch:
            return Watcher(self.source, self._filter, self.options.settle_s)
        return scan(self.source, self._filter, self._ignore)

    def _earlier(self, found: Found, digest: str, manifest: Manifest) -> tuple[Record | None, str]:
        """Return the record that makes a job needless, if any, and the state of the file."""
        record = manifest.get(found.relative)
        if record is None or self.options.force or record.settings != digest:
            return None, NEW
        if (record.size, record.mtime_ns) != (found.size, found.mtime_ns) and not _same_content(
            record, found
        ):
            return None, NEW
        if record.status == DONE:
            there = (self.target / record.output).is_file()
            return (record, SKIPPED_DONE) if there else (None, NEW)
        return (None, NEW) if self.options.retry_failed else (record, SKIPPED_FAILED)

    def _name_problem(self, found: Found) -> str:
        """Say why there can be no result: ``a.avi`` becomes ``a.avi.mp4``, which may be taken or too long."""
        if found.output == found.relative:
            return ""
        length = len(os.fsencode(found.output.rpartition("/")[2]))
        if length > NAME_MAX_BYTES:
            return f"its result, with .mp4 added, would have a name of {length} bytes; shorten it"
        if (self.source / found.output).exists():
            return f"its result would have the name of another file, {found.output}; rename one"
        return ""

    def _ignore(self, relative: str) -> None:
        self.tally.ignored += 1

    def _count(self, outcome: BatchOutcome) -> None:
        record, tally = outcome.record, self.tally
        if record.status == FAILED:
            tally.failed += 1
            if len(tally.failures) < 20:
                tally.failures.append(f"{record.source}: {record.error}")
        elif outcome.fresh:
            tally.done += 1
        else:
            tally.skipped += 1


def batch(
    source: Path | str,
    target: Path | str,
    settings: Settings | None = None,
    options: BatchOptions | None = None,
) -> Iterator[BatchOutcome]:
    """Anonymize a folder of videos into another; yield what became of each file as it is known.

    What an earlier run has finished with the same source and settings is not done again.

    Args:
        source: folder with videos, searched with all its subfolders.
        target: folder for the results, the same tree; also gets ``manifest.jsonl``.
        settings: for every file.
        options: how to go about it.

    Raises:
        InputError, OutputError, SettingsError, ModelsError, DeviceError: for the whole; what goes wrong with
            a single file is in its outcome.
    """
    yield from Batch(Path(source), Path(target), settings, options).run()


def _emptied(skipped: list[BatchOutcome]) -> Iterator[BatchOutcome]:
    while skipped:
        yield skipped.pop(0)


def _failed(job: Job, failure: Failure) -> Record:
    found = job.found
    return Record(
        source=found.relative,
        size=found.size,
        mtime_ns=found.mtime_ns,
        sha256="",
        settings=job.digest,
        status=FAILED,
        exit_code=failure.exit_code,
        error=failure.message,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _same_content(record: Record, found: Found) -> bool:
    """Whether a file with another time stamp is still the one of the record."""
    if record.size != found.size or not record.sha256 or found.problem:
        return False
    try:
        return file_digest(found.path) == record.sha256
    except VidanonError:
        return False  # the job will say why it cannot be read


def _check_folders(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; name a folder with videos")
    if target.exists() and not target.is_dir():
        raise OutputError(f"output {target} is not a folder; name another")
    inside = target.resolve()
    if inside == source.resolve() or inside in source.resolve().parents:
        raise OutputError(f"output folder {target} is or holds the input folder; choose another")


def _with_absolute_paths(settings: Settings) -> Settings:
    """Make settings that name files independent of the folder in which a worker runs."""
    values = {
        section: {
            name: str(Path(str(value)).absolute()) for name, value in options.items() if names_a_file(value)
        }
        for section, options in settings.as_dict().items()
    }
    return override(settings, values)


def _load_key(settings: Settings) -> bytes:
    from vidanon.identity.choose import load_key

    return load_key(settings.identity.key_file) if settings.identity.key_file else b""


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keep a second batch out of the output folder; the lock ends with this process, however it ends."""
    folder = target / WORK_FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise OutputError(f"cannot write to folder {target} ({error.strerror}); choose another") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another batch is writing to {target}; wait for it or stop it") from error
        yield


def _remove_work_folder(target: Path) -> None:
    """Remove what interrupted or failed jobs have left, keys included."""
    shutil.rmtree(target / WORK_FOLDER, ignore_errors=True)
