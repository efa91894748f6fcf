"""``vidanon train``."""

from __future__ import annotations

import time
from pathlib import Path

import click

_LINE_EVERY_S = 5.0


class _Progress:
    """Prints a line with what is being done, how far it is, the time left, and figures."""

    def __init__(self) -> None:
        self._name = ""
        self._start = self._last = 0.0
        self._first = 0

    def __call__(self, name: str, done: int, total: int, figures: dict[str, float]) -> None:
        now = time.monotonic()
        if name != self._name:
            self._name, self._start, self._first = name, now, done
        elif done < total and now - self._last < _LINE_EVERY_S:
            return
        self._last = now
        text = f"{name}: {done}/{total}"
        if done > self._first and done < total:
            left = (now - self._start) / (done - self._first) * (total - done)
            text += f", about {left / 60:.1f} min left"
        click.echo("  ".join([text, *(f"{key} {value:.3f}" for key, value in figures.items())]))


@click.command()
@click.option(
    "--config",
    "config_name",
    default="default",
    show_default=True,
    help="Configuration: default, paper, or a TOML file.",
)
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/train"),
    show_default=True,
    help="Folder of the run: samples, surrogates, checkpoint, log, sheets, weights (some GB).",
)
@click.option(
    "--resume", is_flag=True, help="Go on with the run in the folder; without it, the folder must be new."
)
@click.option(
    "--start",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Begin with the networks of this file instead of random ones ('package': those that ship).",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads.")
def train(
    config_name: str, folder: Path, resume: bool, start: Path | None, device: str, workers: int
) -> None:
    """Train attribute encoder and mapper on faces that the generator makes; no photograph is used.

    Makes the samples, trains the surrogates, then the networks. A run that was stopped or killed goes on
    with --resume from its last checkpoint.
    """
    import torch

    from vidanon.errors import OutputError
    from vidanon.models.registry import ModelStore, names_in, weights_path
    from vidanon.networks.runtime import resolve_device
    from vidanon.training.config import load_config, training_folder
    from vidanon.training.run import Run

    path = Path(config_name)
    config = load_config(path if path.suffix == ".toml" else training_folder() / f"{config_name}.toml")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} holds a run; go on with --resume, or choose another folder with --run")
    models = ModelStore()
    for name in names_in("pipeline"):
        models.fetch(name)
    torch.set_num_threads(workers)
    if start == Path("package"):
        start = weights_path("mapper.safetensors")
    weights = Run(config, folder, models, resolve_device(device), workers, _Progress(), start).execute()
    click.echo(f"weights: {weights}")
