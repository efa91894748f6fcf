"""``vidanon evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidanon.cli.common import with_settings

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import Settings

_FILE = click.Path(path_type=Path)


@click.command()
@click.option("--clips", type=_FILE, help="Folder with videos: anonymize and measure each.")
@click.option("--only", multiple=True, metavar="GLOB", help="Only clips whose names match; repeatable.")
@click.option("--max-frames", type=click.IntRange(1), help="Use the first frames of each clip only.")
@click.option(
    "--stride", type=click.IntRange(1), default=1, show_default=True, help="Judge two frames of every n."
)
@click.option("--deface", is_flag=True, help="Time the deface tool on the same clips as well.")
@click.option("--sheets", type=_FILE, help="Folder for contact sheets. They show the people as they are.")
@click.option(
    "--mapper", is_flag=False, flag_value="", metavar="[WEIGHTS]",
    help="Measure the learned map instead: these weights, or those of the package.",
)  # fmt: skip
@click.option(
    "--faces", type=_FILE, help="With --mapper: folder with real faces (pictures or clips) as well."
)
@click.option(
    "--samples", type=click.IntRange(4), default=256, show_default=True, help="With --mapper: faces to draw."
)
@click.option("--seed", type=click.IntRange(0), help="With --mapper: of the faces drawn.")
@click.option(
    "--ceiling", is_flag=True, help="With --mapper: also what a descent on w reaches (128 samples or more)."
)
@click.option("--json", "results_file", type=_FILE, help="Where the numbers go (default: evaluation.json).")
@with_settings
def evaluate(
    clips: Path | None,
    only: tuple[str, ...],
    max_frames: int | None,
    stride: int,
    deface: bool,
    sheets: Path | None,
    mapper: str | None,
    faces: Path | None,
    samples: int,
    seed: int | None,
    ceiling: bool,
    results_file: Path | None,
    settings: Settings,
    quiet: bool,
) -> None:
    """Measure the whole product on clips (--clips), or the learned map alone (--mapper).

    Prints tables with the verdict on every bar of the project, and writes all numbers as JSON.
    """
    from vidanon.models.registry import ModelStore, names_in

    if (clips is None) == (mapper is None):
        raise click.UsageError("give either --clips DIR or --mapper")
    models = ModelStore(offline=settings.runtime.offline)
    for name in names_in("pipeline", "measure"):
        models.fetch(name)
    if clips is None:
        _measure_mapper(
            models,
            results_file or Path("evaluation.json"),
            weights=Path(mapper) if mapper else None,
            faces=faces,
            samples=samples,
            workers=settings.runtime.workers,
            with_ceiling=ceiling,
            **({} if seed is None else {"seed": seed}),
        )
        return
    from vidanon.evaluate import ClipOptions, evaluate_clips

    if sheets is not None:
        click.echo(f"{sheets}: contact sheets show the people of the sources; keep them private", err=True)
    options = ClipOptions(max_frames, stride, deface, sheets)
    evaluate_clips(clips, only, models, settings, options, results_file)


def _measure_mapper(models: ModelStore, target: Path, **options: Any) -> None:
    import json

    from vidanon.evaluate_mapper import evaluate_mapper
    from vidanon.mapper_tables import format_results

    results = evaluate_mapper(models, **options)
    target.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    click.echo(format_results(results))
    click.echo(f"all numbers: {target}")
