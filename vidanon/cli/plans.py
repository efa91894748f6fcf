"""``vidanon plan`` and ``vidanon render``: the two passes, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidanon.cli.common import audit_options, with_settings
from vidanon.cli.progress import ProgressPrinter, print_summary

if TYPE_CHECKING:
    from vidanon.settings import Settings


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Plan file; default INPUT.plan.json.")
@with_settings
def plan(
    source: Path,
    output: Path | None,
    settings: Settings,
    quiet: bool,
) -> None:
    """Find out who is where in INPUT and write it to a file that can be reviewed and edited.

    The new faces are chosen here as well, by drawing a few frames with each that comes into question.
    """
    from vidanon.api import analyse, require_writable
    from vidanon.planfile import save_plan
    from vidanon.stages.decode import probe

    target = output or source.with_suffix(".plan.json")
    probe(source)
    require_writable(source, target)
    with ProgressPrinter(quiet) as progress:
        result = analyse(source, settings, progress=progress)
    save_plan(result, target)
    if not quiet:
        people = len({track.person for track in result.tracks})
        click.echo(f"{people} people in {len(result.tracks)} tracks, {result.frames} frames: {target}")


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Result; default INPUT.anon.*.")
@audit_options
@with_settings
def render(
    source: Path,
    plan_file: Path,
    output: Path | None,
    report: Path | None,
    settings: Settings,
    quiet: bool,
) -> None:
    """Make the result from INPUT and a (possibly edited) PLAN that was made from this very file."""
    from vidanon.api import default_output, render_plan
    from vidanon.models.registry import ModelStore
    from vidanon.planfile import load_plan

    models = ModelStore(offline=settings.runtime.offline)
    target = output or default_output(source)
    with ProgressPrinter(quiet) as progress:
        summary = render_plan(source, load_plan(plan_file), target, settings, models, progress, report)
    if not quiet:
        print_summary(summary)
