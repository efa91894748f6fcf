"""Options that several commands share, built from the declarations in :mod:`vidanon.settings`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from vidanon.settings import Settings, load_settings, override

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FLAGS = {
    "key_file": "identity.key_file",
    "device": "runtime.device",
    "workers": "runtime.workers",
    "offline": "runtime.offline",
}


def _flag(name: str) -> Decorator:
    """Build the click option of a setting: same help, same bounds."""
    section, option = FLAGS[name].split(".")
    declared = {f.name: f for f in fields(getattr(Settings(), section))}[option]
    flag, help_text = f"--{name.replace('_', '-')}", declared.metadata["help"].capitalize() + "."
    if isinstance(declared.default, bool):
        return click.option(flag, name, is_flag=True, default=None, help=help_text)
    kind: Any = type(declared.default)
    if declared.metadata["choices"]:
        kind = click.Choice(declared.metadata["choices"])
    elif declared.metadata["low"] is not None:
        kind = click.IntRange(declared.metadata["low"], declared.metadata["high"])
    return click.option(flag, name, type=kind, default=None, help=help_text)


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--preset``, ``--set`` and the flags that stand for one setting each."""
    decorators: list[Decorator] = [
        click.option("--preset", help="A shipped preset (see 'vidanon presets list') or a .toml file."),
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="SECTION.OPTION=VALUE",
            help="Change one setting; may be given several times.",
        ),
        *(_flag(name) for name in FLAGS),
        click.option("--quiet", is_flag=True, help="No progress and no summary."),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def settings_from(preset: str | None, assignments: tuple[str, ...], flags: dict[str, Any]) -> Settings:
    """Combine defaults < preset < ``--set`` < flags."""
    settings = load_settings(preset, assignments)
    for name, path in FLAGS.items():
        if flags.get(name) is not None:
            section, option = path.split(".")
            settings = override(settings, {section: {option: flags[name]}}, f"--{name}")
    return settings
