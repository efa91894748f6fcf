"""``vidanon audit``."""

from __future__ import annotations

from pathlib import Path

import click

from vidanon.cli.progress import ProgressPrinter


@click.command()
@click.argument("source", metavar="SOURCE", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUTPUT", type=click.Path(path_type=Path))
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Write what was measured; a .json with the same goes beside it.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker threads.")
@click.option("--offline", is_flag=True, help="Never fetch a model.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; only what did not pass.")
def audit(source: Path, output: Path, report: Path | None, workers: int, offline: bool, quiet: bool) -> None:
    """Measure what is left of the people of SOURCE in OUTPUT.

    Ends with exit code 7 if an original face is left, someone is recognised, or frames or sound differ.
    """
    from vidanon.api import audit_files
    from vidanon.models.registry import ModelStore

    models = ModelStore(offline=offline)
    with ProgressPrinter(quiet) as progress:
        found = audit_files(source, output, report, workers, models, progress)
    if not quiet:
        for check in found.checks:
            click.echo(f"{'passed' if check.passed else 'FAILED'}  {check.name:<18} {check.detail}")
        for name, value in found.totals.items():
            click.echo(f"        {name:<18} {'-' if value is None else value}")
        for note in found.notes:
            click.echo(f"note    {note}")
    if not found.passed:
        from vidanon.errors import UnsafeError

        raise UnsafeError(f"{output}: {found.failures()}")
