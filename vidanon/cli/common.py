"""Options that several commands share, built from the declarations in :mod:`vidanon.settings`."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from vidanon.settings import Settings, load_settings, override

Command = Callable[..., Any]

FLAGS = {
    "min_face": "detect.min_face_px",
    "region": "select.region",
    "obscure": "select.obscure",
    "keep_person": "select.keep_person",
    "only_person": "select.only_person",
    "key_file": "identity.key_file",
    "cast": "identity.cast",
    "participant": "identity.participant",
    "keep_metadata": "encode.keep_metadata",
    "device": "runtime.device",
    "workers": "runtime.workers",
    "offline": "runtime.offline",
}

log = logging.getLogger("vidanon")


def with_settings(command: Command) -> Command:
    """Add ``--preset``, ``--set``, the flags of single settings, ``--quiet`` and ``--verbose``.

    The command is called with ``settings`` (:class:`Settings`) and ``quiet`` (bool) in their place.
    """

    @functools.wraps(command)
    def run(
        *arguments: Any,
        preset: str | None,
        assignments: tuple[str, ...],
        quiet: bool,
        verbose: bool,
        **options: Any,
    ) -> Any:
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose exclude each other")
        flags = {name: options.pop(name) for name in FLAGS}
        settings = settings_from(preset, assignments, flags)
        with _log_shown(settings) if verbose else contextlib.nullcontext():
            return command(*arguments, settings=settings, quiet=quiet, **options)

    decorators: list[Callable[[Command], Command]] = [
        click.option("--preset", help="A shipped preset (see 'vidanon presets list') or a .toml file."),
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="SECTION.OPTION=VALUE",
            help="Change one setting ('vidanon presets show balanced' lists them); repeatable.",
        ),
        *(_flag(name) for name in FLAGS),
        click.option("-q", "--quiet", is_flag=True, help="No progress and no summary."),
        click.option("-v", "--verbose", is_flag=True, help="Say what is read, written and set."),
    ]
    wrapped: Command = run
    for decorate in reversed(decorators):
        wrapped = decorate(wrapped)
    return wrapped


def audit_options(command: Command) -> Command:
    """Add ``--report`` and ``--no-audit``; put it above :func:`with_settings`, whose settings it changes."""

    @functools.wraps(command)
    def run(*arguments: Any, no_audit: bool, **options: Any) -> Any:
        if no_audit:
            click.echo("--no-audit: nobody will check the result; do not take it for anonymous", err=True)
            options["assignments"] += ("audit.enabled=false",)
        return command(*arguments, **options)

    run = click.option(
        "--no-audit", is_flag=True, help="Do not check the encoded result. Nobody vouches for it then."
    )(run)
    return click.option(
        "--report",
        type=click.Path(path_type=Path),
        metavar="FILE.html",
        help="Write what was measured on the result; a .json with the same goes beside it.",
    )(run)


def settings_from(preset: str | None, assignments: tuple[str, ...], flags: dict[str, Any]) -> Settings:
    """Combine defaults < preset < ``--set`` < flags."""
    settings = load_settings(preset, assignments)
    for name, path in FLAGS.items():
        if flags.get(name) is not None:
            section, option = path.split(".")
            settings = override(settings, {section: {option: flags[name]}}, f"--{name.replace('_', '-')}")
    return settings


def _flag(name: str) -> Callable[[Command], Command]:
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


class _Echo(logging.Handler):
    """Writes the log as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"vidanon: {record.getMessage()}", err=True)


@contextlib.contextmanager
def _log_shown(settings: Settings) -> Iterator[None]:
    """Show the package's log, beginning with the settings that are not the defaults."""
    echo = _Echo()
    log.addHandler(echo)
    log.setLevel(logging.INFO)
    default = Settings().as_dict()
    for section, options in settings.as_dict().items():
        for option, value in options.items():
            if value != default[section][option]:
                log.info("%s.%s = %s", section, option, value)
    try:
        yield
    finally:
        log.removeHandler(echo)
        log.setLevel(logging.NOTSET)
