"""``vidanon anonymize``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidanon.cli.common import audit_options, with_settings
from vidanon.cli.progress import ProgressPrinter, print_summary

if TYPE_CHECKING:
    from vidanon.settings import Settings


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Result; default INPUT.anon.*.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Draw a long video in so many processes, which share the worker threads.",
)
@audit_options
@with_settings
def anonymize(
    source: Path,
    output: Path | None,
    jobs: int,
    report: Path | None,
    settings: Settings,
    quiet: bool,
) -> None:
    """Give everyone in INPUT a new, fictional face.

    INPUT is a video, a picture or a folder of pictures; the result is of the same kind, .mp4 for kinds of
    video that cannot be written. Metadata is removed; the summary names what was left out.

    Missing models are fetched first, unless --offline is given. The source is never changed, and the
    result appears under its name only when it is complete and nobody is recognised in it any more;
    otherwise it is kept as NAME.rejected.* and the exit code is 7.
    """
    from vidanon import api
    from vidanon.jobs.parts import in_processes

    target = output or api.default_output(source)
    parts = in_processes(jobs, target) if jobs > 1 else contextlib.nullcontext()
    with ProgressPrinter(quiet) as progress, parts as draw:
        summary = api.anonymize(source, target, settings, progress=progress, report=report, draw=draw)
    if not quiet:
        print_summary(summary)
