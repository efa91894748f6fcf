"""``vidanon anonymize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidanon.cli.common import settings_from, settings_options
from vidanon.cli.progress import ProgressPrinter, print_summary


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Result; default INPUT.anon.mp4.")
@settings_options
def anonymize(
    source: Path,
    output: Path | None,
    preset: str | None,
    assignments: tuple[str, ...],
    quiet: bool,
    **flags: Any,
) -> None:
    """Give everyone in INPUT a new, fictional face.

    Missing models are fetched first, unless --offline is given. The source is never changed, and the
    result appears under its name only when it is complete.
    """
    from vidanon import api

    settings = settings_from(preset, assignments, flags)
    with ProgressPrinter(quiet) as progress:
        summary = api.anonymize(source, output, settings, progress=progress)
    if not quiet:
        print_summary(summary)
