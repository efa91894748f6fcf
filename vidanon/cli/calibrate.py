"""``vidanon calibrate``."""

from __future__ import annotations

from pathlib import Path

import click

from vidanon.cli.progress import ProgressPrinter
from vidanon.progress import meter


@click.command()
@click.argument("faces", metavar="FACES_DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the thresholds here as JSON.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker threads.")
@click.option("--offline", is_flag=True, help="Never fetch a model.")
@click.option("--quiet", is_flag=True, help="No progress.")
def calibrate(faces: Path, output: Path | None, workers: int, offline: bool, quiet: bool) -> None:
    """Find where each recogniser's line between one person and two lies.

    FACES_DIR holds one folder per person with several pictures each. The thresholds that the package
    uses were found so on 500 people of LFW; this checks them on other faces.
    """
    import json

    from vidanon.calibrate import calibrate as measure
    from vidanon.errors import OutputError
    from vidanon.models.registry import ModelStore
    from vidanon.models.thresholds import FALSE_ACCEPT_RATES
    from vidanon.recognisers import EMBEDDERS

    models = ModelStore(offline=offline)
    recognisers = (embedder.MODEL for embedder in EMBEDDERS.values())
    for name in ("centerface", "yunet", "face-landmarker", *recognisers):
        models.fetch(name)
    with ProgressPrinter(quiet) as progress:
        result = measure(faces, models, workers, meter(progress, "calibrate"))
    pictures = f"{result['pictures']} pictures ({result['without_face']} without a face)"
    pairs = f"{result['same_pairs']} pairs of one person, {result['different_pairs']} of two"
    click.echo(f"{result['people']} people, {pictures}, {pairs}")
    for name, points in result["recognisers"].items():
        for rate in (rate for rate in FALSE_ACCEPT_RATES if rate in points):
            threshold, tpr = points[rate]["threshold"], points[rate]["tpr"]
            click.echo(f"{name:<8} {rate.replace('_', ' ')}  threshold {threshold:.4f}  TPR {tpr:.4f}")
    if output is not None:
        try:
            output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {output} ({error.strerror}); choose another with -o") from error
