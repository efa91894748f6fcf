"""Progress on stderr (bars with ETA on a terminal, plain lines otherwise) and the summary."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vidanon.api import Summary

_LINE_EVERY_S = 10.0


class ProgressPrinter:
    """Shows how far each pass is; call it with (pass name, frames done, total or 0)."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bars = sys.stderr.isatty()
        self._bar: Any = None
        self._name = ""
        self._started = self._last_line = 0.0

    def __enter__(self) -> ProgressPrinter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_bar()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` frames (0: unknown) of the pass ``name`` are through."""
        if self._quiet:
            return
        if name != self._name:
            self._begin(name, total)
        if self._bars:
            self._bar.total = total or None
            self._bar.update(done - self._bar.n)
        else:
            self._line(name, done, total)

    def _begin(self, name: str, total: int) -> None:
        self._close_bar()
        self._name = name
        self._started = time.monotonic()
        self._last_line = self._started - _LINE_EVERY_S
        if self._bars:
            from tqdm import tqdm

            self._bar = tqdm(total=total or None, desc=name, unit="frame", dynamic_ncols=True)

    def _line(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done != total and now - self._last_line < _LINE_EVERY_S:
            return
        self._last_line = now
        text = f"{name}: {done}/{total or '?'} frames"
        if 0 < done < total:
            text += f", about {(now - self._started) / done * (total - done):.0f} s left"
        click.echo(text, err=True)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def print_summary(summary: Summary) -> None:
    """Print what a run did, on one screen."""
    people = "nobody was found" if summary.people == 0 else f"{summary.people}"
    rows = [
        ("people", people),
        ("frames", f"{summary.frames}"),
        ("faces replaced", f"{summary.replaced}"),
        ("faces obscured", f"{summary.obscured}"),
        *((f"time: {stage}", f"{seconds:.1f} s") for stage, seconds in summary.seconds.items()),
        ("time in total", f"{summary.total_s:.1f} s"),
        *(("note", note) for note in summary.notes),
        ("output", str(summary.output)),
    ]
    for label, value in rows:
        click.echo(f"{label:<20} {value}")
