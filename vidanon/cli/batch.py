"""``vidanon batch``: a folder of videos."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from vidanon.cli.common import with_settings

if TYPE_CHECKING:
    from vidanon.jobs.batch import Batch, BatchOutcome
    from vidanon.jobs.job import Job
    from vidanon.settings import Settings

# Two cores, 640x360, one face, by examples/cluster/measure.py: 0.18 s of processor time a frame, 7 s a file.
FRAMES_PER_S = 11.0
SECONDS_PER_FILE = 3.6


@click.command()
@click.argument("source", metavar="IN_DIR", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT_DIR", type=click.Path(path_type=Path))
@click.option(
    "--include", multiple=True, metavar="GLOB", help="Only such files; repeatable. Default: videos."
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Not such files; repeatable.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    help="Files at a time; default one per two cores. The cores are shared among them.",
)
@click.option(
    "--executor", type=click.Choice(["serial", "processes", "ray"]), default="processes", show_default=True
)
@click.option("--address", default="local", show_default=True, help="Ray: local, auto, or HOST:PORT.")
@click.option("--gpus", type=click.FloatRange(0), default=0.0, help="Ray: share of a GPU per job.")
@click.option(
    "--link",
    type=click.Choice(["video", "batch"]),
    default="video",
    show_default=True,
    help="batch: one person has one new face in all files. Who watches several files can then tell that it "
    "is one person; all files are analysed first and the people compared, in memory only.",
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be done, how large it is and how long it takes."
)
@click.option("--retry-failed", is_flag=True, help="Do again what failed with the same settings.")
@click.option("--force", is_flag=True, help="Do everything again.")
@click.option("--stop-on-error", is_flag=True, help="Stop at the first file that fails.")
@click.option("--watch", is_flag=True, help="Go on for ever: take new files when they stop growing.")
@click.option(
    "--settle", type=click.FloatRange(0), default=10.0, show_default=True, help="Watch: how long, seconds."
)
@with_settings
def batch(
    source: Path,
    target: Path,
    settings: Settings,
    quiet: bool,
    jobs: int | None,
    dry_run: bool,
    settle: float,
    **options: Any,
) -> None:
    """Give everyone in all videos of IN_DIR new faces; the results go to the same tree in OUT_DIR.

    Run it again after an interruption: what is finished with the same settings is skipped. What became of
    each file stands in OUT_DIR/manifest.jsonl and, to read, in OUT_DIR/index.html. One file that fails does
    not stop the others; the exit code is then 8.

    A pattern with a slash is held against the path below IN_DIR, another against the name. Each file gets
    faces of its own, also with --key-file; see --link.
    """
    from vidanon.errors import JobsError
    from vidanon.jobs.batch import Batch, BatchOptions
    from vidanon.jobs.index import NAME, write_index
    from vidanon.jobs.manifest import NAME as MANIFEST
    from vidanon.jobs.manifest import Manifest

    run = Batch(source, target, settings, BatchOptions(jobs=jobs or 0, settle_s=settle, **options))
    if dry_run:
        _preview(run)
        return
    try:
        with _Bars(run, quiet) as bars:
            for outcome in run.run(bars.watch):
                bars.finished(outcome)
    finally:
        if target.is_dir():
            with Manifest(target / MANIFEST) as manifest:
                write_index(target / NAME, manifest)
    if not quiet:
        _print_tally(run)
    if run.tally.failed:
        raise JobsError(f"{run.tally.failed} of {run.tally.total} files failed; see {target / MANIFEST}")


def _preview(run: Batch) -> None:
    """Print what a run would do."""
    from vidanon.errors import VidanonError
    from vidanon.jobs.batch import NEW, SKIPPED_DONE, SKIPPED_FAILED
    from vidanon.stages.decode import probe

    counts: dict[str, int] = {}
    size = frames = 0
    for found, state in run.preview():
        if state == NEW:
            try:
                info = probe(found.path)
            except VidanonError as error:
                state = str(error)
            else:
                size += found.size
                frames += info.frame_count
        kind = state if state in (NEW, SKIPPED_DONE, SKIPPED_FAILED) else "unusable"
        counts[kind] = counts.get(kind, 0) + 1
        click.echo(f"{state:<14} {found.size / 1e6:10.1f} MB  {_printable(found.relative)}")
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "no videos"
    click.echo(f"{summary}; {run.tally.ignored} other files are left out")
    if frames:
        seconds = frames / FRAMES_PER_S + counts[NEW] * SECONDS_PER_FILE
        click.echo(
            f"{size / 1e6:.1f} MB and about {frames} frames to do, roughly {seconds / 3600:.1f} hours on two "
            f"cores ({FRAMES_PER_S} frames a second, small pictures with one face)"
        )


def _print_tally(run: Batch) -> None:
    tally = run.tally
    rows = [
        ("done", tally.done),
        ("done before", tally.skipped),
        ("failed", tally.failed),
        ("left out by name", tally.ignored),
        ("torn manifest lines", tally.torn_lines),
    ]
    for label, value in rows:
        click.echo(f"{label:<20} {value}")
    for line in tally.failures:
        click.echo(f"  {_printable(line)}", err=True)
    if tally.failed > len(tally.failures):
        click.echo(f"  and {tally.failed - len(tally.failures)} more", err=True)
    click.echo(f"{'output':<20} {run.target}")


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


class _Bars:
    """One bar over all files and one per job on a terminal; elsewhere a line per finished file."""

    def __init__(self, run: Batch, quiet: bool) -> None:
        self._quiet, self._bars = quiet, sys.stderr.isatty() and not quiet
        self._run = run
        self._rows: dict[str, tuple[int, Any]] = {}

    def __enter__(self) -> _Bars:
        if self._bars:
            from tqdm import tqdm

            total = None
            if not self._run.options.watch:
                total = sum(found.size for found, _ in self._run.preview())
                self._run.tally.ignored = 0  # counted again by the run itself
            self._all = tqdm(total=total, desc="all files", unit="B", unit_scale=True, dynamic_ncols=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, bar in self._rows.values():
            bar.close()
        if self._bars:
            self._all.close()

    def watch(self, job: Job, name: str, done: int, total: int) -> None:
        """Show how far one job is."""
        if not self._bars:
            return
        from tqdm import tqdm

        key = job.found.relative
        row, bar = self._rows.get(key, (0, None))
        if bar is None or bar.vidanon_pass != name:
            if bar is None:
                taken = {row for row, _ in self._rows.values()}
                row = next(number for number in range(1, len(taken) + 2) if number not in taken)
            else:
                bar.close()
            text = f"{_printable(job.found.path.name)[:30]} {name}"
            bar = tqdm(desc=text, position=row, unit="frame", leave=False, dynamic_ncols=True)
            bar.vidanon_pass = name
            self._rows[key] = (row, bar)
        bar.total = total or None
        bar.update(done - bar.n)

    def finished(self, outcome: BatchOutcome) -> None:
        """Take a file off the screen."""
        record = outcome.record
        if self._bars:
            _, bar = self._rows.pop(record.source, (0, None))
            if bar is not None:
                bar.close()
            self._all.update(record.size)
        if outcome.fresh and not self._quiet:
            text = record.error or f"{record.people} people, {record.frames} frames, {record.seconds:.0f} s"
            line = _printable(f"{record.source}: {text}")
            if self._bars:
                self._all.write(line, file=sys.stderr)
            else:
                click.echo(line, err=True)
        if outcome.trace:
            click.echo(outcome.trace, err=True)
