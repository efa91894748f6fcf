"""``vidanon presets``: the named sets of settings."""

from __future__ import annotations

import click


@click.group()
def presets() -> None:
    """Named sets of settings for --preset."""


@presets.command("list")
def list_presets() -> None:
    """List the presets that ship with the package."""
    from vidanon.settings import preset_names, preset_path

    for name in preset_names():
        first = preset_path(name).read_text("utf-8").splitlines()[0]
        click.echo(f"{name:<10} {first.lstrip('# ')}")


@presets.command()
@click.argument("name")
def show(name: str) -> None:
    """Show all settings of a preset, with what each one means."""
    from dataclasses import fields

    from vidanon.settings import load_settings

    settings = load_settings(name)
    for section in fields(settings):
        values = getattr(settings, section.name)
        click.echo(f"[{section.name}]")
        for option in fields(values):
            value = getattr(values, option.name)
            shown = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
            click.echo(f"{option.name} = {shown}  # {option.metadata['help']}")
        click.echo()
