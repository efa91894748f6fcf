"""The ``vidanon`` command. Heavy libraries are imported inside the commands, so that help is instant."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import click

from vidanon import __version__
from vidanon.cli import (
    anonymize,
    audit,
    batch,
    calibrate,
    coherence,
    doctor,
    evaluate,
    models,
    plans,
    presets,
    train,
)
from vidanon.errors import ExitCode, VidanonError

EXIT_CODES = """\b
Exit codes:
  0    done
  1    a bug in vidanon (please report it)
  2    a setting, flag, preset or plan does not fit
  3    the input cannot be used
  4    a model is missing or altered
  5    the device is not available
  6    the output cannot be written
  7    coverage or audit not passed; nothing was published
  8    some jobs failed
  130  interrupted (Ctrl-C); nothing unfinished was published
  143  ended by SIGTERM or SIGHUP; nothing unfinished was published
"""

_REPEAT_S = 3.0


class _Terminated(BaseException):
    """A signal asked the program to end; like KeyboardInterrupt no error of the program."""


class _Group(click.Group):
    """Turns the errors of the package into one line and an exit code; the only place that does."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            with _signals():
                return super().invoke(ctx)
        except VidanonError as error:
            if ctx.params["debug"]:
                raise
            click.echo(f"vidanon: {' '.join(str(error).split())}", err=True)
            ctx.exit(int(error.exit_code))
        except KeyboardInterrupt:
            click.echo("vidanon: interrupted; nothing unfinished was published", err=True)
            ctx.exit(int(ExitCode.INTERRUPTED))
        except _Terminated:
            click.echo("vidanon: ended by a signal; nothing unfinished was published", err=True)
            ctx.exit(int(ExitCode.TERMINATED))


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Turn signals that end a program into exceptions, so that what was begun is cleaned up.

    A signal that comes again within 3 seconds is ignored: impatience must not stop the cleaning up. One
    that is ignored already (as under nohup) stays so.
    """
    last = -_REPEAT_S

    def end(number: int, _: object) -> None:
        nonlocal last
        if time.monotonic() - last < _REPEAT_S:
            return
        last = time.monotonic()
        raise KeyboardInterrupt if number == signal.SIGINT else _Terminated

    numbers = [signal.SIGINT, signal.SIGTERM] + [signal.SIGHUP] * hasattr(signal, "SIGHUP")
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.group(cls=_Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show a traceback for every error.")
def main(debug: bool) -> None:
    """Give everyone in a video a new, fictional face that stays the same."""


for _command in (
    anonymize.anonymize,
    batch.batch,
    plans.plan,
    plans.render,
    models.models,
    presets.presets,
    doctor.doctor,
    audit.audit,
    evaluate.evaluate,
    coherence.coherence,
    calibrate.calibrate,
    train.train,
):
    _command.epilog = "Exit codes: see 'vidanon --help'."
    main.add_command(_command)
