"""``vidanon evaluate``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--clips", required=True, type=click.Path(path_type=Path), help="Folder with videos.")
def evaluate(clips: Path) -> None:
    """Anonymize every clip of a folder and print what was measured on the results."""
    from vidanon.evaluate import evaluate_clips

    evaluate_clips(clips)
