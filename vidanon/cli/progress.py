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
_LATER_LINE_EVERY_S = 60.0
_UNITS = {"convert": "network"}
"""What a pass counts, if not frames."""


class ProgressPrinter:
    """Shows how far each pass is; call it with (pass name, frames done, total or 0).

    On a terminal one bar per pass. Elsewhere a line every 10 seconds for a minute, then every minute, and
    one when a pass is through.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bars = sys.stderr.isatty()
        self._bar: Any = None
        self._name = ""
        self._first = self._done = 0
        self._started = self._last_line = 0.0
        # A pass lasts from the end of the one before, so that loading its networks counts.
        self._begun = self._updated = 0.0

    def __enter__(self) -> ProgressPrinter:
        self._updated = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(complete=kind is None)

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` frames (or networks; 0: unknown) of the pass ``name`` are done."""
        if self._quiet:
            return
        if name != self._name:
            self._end(complete=True)
            self._begin(name, done, total)
        self._done, self._updated = done, time.monotonic()
        if self._bars:
            self._bar.total = total or None
            self._bar.update(done - self._bar.n)
        else:
            self._line(done, total)

    @property
    def _unit(self) -> str:
        return _UNITS.get(self._name, "frame")

    def _begin(self, name: str, done: int, total: int) -> None:
        self._name, self._first, self._begun = name, done, self._updated
        self._started = self._last_line = time.monotonic()
        if self._bars:
            from tqdm import tqdm

            self._bar = tqdm(total=total or None, desc=name, unit=self._unit, dynamic_ncols=True)

    def _line(self, done: int, total: int) -> None:
        now = time.monotonic()
        spent = now - self._started
        every = _LINE_EVERY_S if spent <= _LATER_LINE_EVERY_S else _LATER_LINE_EVERY_S
        if now - self._last_line < every:
            return
        self._last_line = now
        text = f"{self._name}: {done}/{total or '?'} {self._unit}s"
        # The first frame took as long as the networks took to load: it says nothing of the others.
        if self._first < done < total:
            text += f", about {spent / (done - self._first) * (total - done):.0f} s left"
        click.echo(text, err=True)

    def _end(self, complete: bool) -> None:
        """Close a pass; say so where there is no bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._name and complete:
            seconds = self._updated - self._begun
            number = f"{self._done} {self._unit}{'s' * (self._done != 1)}"
            click.echo(f"{self._name}: {number} in {seconds:.0f} s", err=True)
        self._name = ""


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
        *((("audit", summary.audit.summary()),) if summary.audit else ()),
        *(("note", note) for note in summary.notes),
        ("output", str(summary.output)),
    ]
    for label, value in rows:
        click.echo(f"{label:<20} {value}")
