"""``vidanon coherence``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidanon.cli.common import with_settings
from vidanon.cli.progress import ProgressPrinter

if TYPE_CHECKING:
    from vidanon.settings import Settings


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Video, or a folder where SOURCE is one.",
)
@click.option(
    "--identity", default="self", show_default=True, metavar="PICTURE|self", help="Whose face is shown."
)
@click.option(
    "--size", type=click.Choice(["128", "256", "512", "1024"]), default="512", show_default=True,
    help="Side of the pictures, pixels.",
)  # fmt: skip
@click.option("--json", "results_file", type=click.Path(path_type=Path), help="Write the figures here.")
@with_settings
def coherence(
    source: Path,
    output: Path,
    identity: str,
    size: str,
    results_file: Path | None,
    settings: Settings,
    quiet: bool,
) -> None:
    """Hold one identity over SOURCE, a video or a folder of pictures, and measure how constant it is.

    The result shows the aligned head, generated in full, on its own. This is no anonymization: with
    'self' it shows the person of the source, with a picture the person in it. Ask them first.
    """
    import json

    from vidanon.coherence import hold_identity
    from vidanon.models.registry import ModelStore

    models = ModelStore(offline=settings.runtime.offline)
    picture = None if identity == "self" else Path(identity)
    with ProgressPrinter(quiet) as progress:
        figures = hold_identity(source, output, picture, settings, models, int(size), progress)
    if results_file is not None:
        results_file.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    if not quiet:
        _print(figures, output)


def _print(figures: dict[str, Any], output: Path) -> None:
    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    before, after = figures["before"], figures["after"]
    click.echo(f"{'frames':<34} {figures['frames']} ({figures['without_face']} without a face)")
    click.echo(f"{'':<34} {'before':>8} {'after':>8} {'ratio':>8}")
    for title, key, ratio in (
        ("adjacent frames, SFace (TL-ID)", "local", figures["tl_id"]),
        ("   lowest", "lowest", None),
        ("all pairs of frames, SFace (TG-ID)", "global", figures["tg_id"]),
    ):
        click.echo(f"{title:<34} {text(before[key]):>8} {text(after[key]):>8} {text(ratio):>8}")
    click.echo(f"{'to the identity that was asked for':<34} {'':>8} {text(figures['to_identity']):>8}")
    click.echo(f"{'output':<34} {output}")
