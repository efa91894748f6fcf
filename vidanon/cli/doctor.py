"""``vidanon doctor``."""

from __future__ import annotations

import click

PACKAGES = ("av", "click", "kornia", "mediapipe", "numpy", "onnx", "openvino", "scipy", "torch")


@click.command()
def doctor() -> None:
    """Say what is installed, which models are present, and which device is used."""
    import platform
    from importlib import metadata

    import torch

    from vidanon import __version__
    from vidanon.errors import ModelsError
    from vidanon.models.registry import ModelStore, load_registry
    from vidanon.networks.runtime import resolve_device

    click.echo(f"vidanon {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in PACKAGES:
        click.echo(f"  {package:<12} {metadata.version(package)}")
    device = resolve_device("auto")
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu"
    click.echo(f"device: {device} ({name})")
    store = ModelStore()
    click.echo(f"models in {store.root}:")
    missing = []
    for entry in load_registry().values():
        problem = store.problem(entry.name)
        click.echo(f"  {entry.name:<20} {problem or 'ok'}")
        if problem and entry.group == "pipeline":
            missing.append(entry.name)
    if missing:
        raise ModelsError(f"the pipeline lacks {', '.join(missing)}; run 'vidanon models fetch'")
