"""``vidanon doctor``."""

from __future__ import annotations

import click


@click.command()
def doctor() -> None:
    """Say what is installed, which models are present, and which device is used.

    Ends with an exit code other than 0 where something is missing that 'vidanon anonymize' needs.
    """
    import os
    import platform

    from vidanon import __version__
    from vidanon.errors import DeviceError, ModelsError

    click.echo(f"vidanon {__version__}, Python {platform.python_version()}, {platform.platform()}")
    absent = _packages()
    if absent:
        raise DeviceError(f"the installation lacks {', '.join(absent)}; install vidanon again with pip")
    click.echo(f"device: {_device()}, {os.cpu_count()} CPU cores")
    missing = _models()
    if missing:
        raise ModelsError(f"the pipeline lacks {', '.join(missing)}; run 'vidanon models fetch'")


def _packages() -> list[str]:
    """Print the versions of what vidanon depends on; return what is not there."""
    import re
    from importlib import metadata

    absent = []
    for requirement in metadata.requires("vidanon") or ():
        if "extra ==" in requirement:
            continue
        match = re.match(r"[\w.-]+", requirement)
        assert match is not None, "a requirement begins with a name"
        name = match.group()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "missing"
            absent.append(name)
        click.echo(f"  {name:<16} {version}")
    return absent


def _device() -> str:
    """Name the device that ``--device auto`` takes."""
    import platform

    import torch

    from vidanon.networks.runtime import resolve_device

    device = resolve_device("auto")
    return f"{device} ({torch.cuda.get_device_name() if device == 'cuda' else platform.machine()})"


def _models() -> list[str]:
    """Print the state of every model; return those that the pipeline lacks."""
    from vidanon.models.registry import ModelStore, load_registry

    store = ModelStore()
    click.echo(f"models in {store.root}:")
    missing = []
    for entry in load_registry().values():
        problem = store.problem(entry.name)
        needed = entry.group == "pipeline"
        click.echo(f"  {entry.name:<20} {problem or 'ok'}{'' if needed or not problem else ' (optional)'}")
        if problem and needed:
            missing.append(entry.name)
    return missing
