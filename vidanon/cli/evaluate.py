"""``vidanon evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidanon.cli.common import with_settings

if TYPE_CHECKING:
    from vidanon.settings import Settings


@click.command()
@click.option("--clips", required=True, type=click.Path(path_type=Path), help="Folder with videos.")
@click.option("--only", multiple=True, metavar="NAME", help="Only clips whose names begin so; repeatable.")
@click.option("--max-frames", type=click.IntRange(1), help="Use the first frames of each clip only.")
@click.option(
    "--stride", type=click.IntRange(1), default=1, show_default=True, help="Measure each n-th frame."
)
@click.option("--deface", is_flag=True, help="Time the deface tool on the same clips as well.")
@click.option(
    "--json", "results_file", type=click.Path(path_type=Path), help="Write the numbers here as well."
)
@with_settings
def evaluate(
    clips: Path,
    only: tuple[str, ...],
    max_frames: int | None,
    stride: int,
    deface: bool,
    results_file: Path | None,
    settings: Settings,
    quiet: bool,
) -> None:
    """Anonymize every clip of a folder and print what was measured on the results."""
    from vidanon.evaluate import evaluate_clips
    from vidanon.models.registry import ModelStore, names_in

    models = ModelStore(offline=settings.runtime.offline)
    for name in names_in("pipeline", "measure"):
        models.fetch(name)
    evaluate_clips(clips, only or None, models, settings, max_frames, deface, stride, results_file)
