"""What all executors have in common: outcomes, errors as values, and where items come from."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from vidanon.errors import ExitCode, VidanonError

In = TypeVar("In")
Out = TypeVar("Out")

MAX_ATTEMPTS = 3
"""How often an item is begun whose worker dies before it is done."""

POLL_S = 0.5
"""How long an executor waits before it asks a pausing source of items again."""


class Pause(Enum):
    """What an endless source of items yields when it has none right now."""

    PAUSE = "pause"


PAUSE = Pause.PAUSE

Report = Callable[[str, int, int], None]
"""Called by work as it advances: (pass, frames done, frames in all or 0)."""

Work = Callable[[In, Report], Out]
"""Picklable. Sent to each worker once, so what it keeps on itself stays loaded between items."""

Watch = Callable[[In, str, int, int], None]
"""Called in the parent: (item, pass, done, total)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a value.

    Attributes:
        message: one line; what happened and what to do.
        exit_code: how the command would end if this were its only job.
        trace: the traceback of an unexpected error, or "".
    """

    message: str
    exit_code: int = int(ExitCode.BUG)
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception; only unexpected ones keep their traceback."""
        text = " ".join(str(error).split())
        if isinstance(error, VidanonError):
            return cls(text, int(error.exit_code))
        trace = "".join(traceback.format_exception(error))
        return cls(f"unexpected {type(error).__name__}: {text}; please report it", trace=trace)

    def error(self) -> VidanonError:
        """Return this as an error again, for work whose parts must all succeed."""
        kinds = {kind.exit_code: kind for kind in VidanonError.__subclasses__()}
        return kinds.get(ExitCode(self.exit_code), VidanonError)(self.message)

    @classmethod
    def death(cls, how: str) -> Failure:
        """Describe a worker that died on an item every time it was tried."""
        advice = "if memory ran out, use fewer jobs"
        return cls(f"the worker died {MAX_ATTEMPTS} times ({how}); {advice}")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[In, Out]):
    """What became of an item: a value, or a failure."""

    item: In
    value: Out | None = None
    failure: Failure | None = None


class Executor(Protocol):
    """Runs work on items, each exactly once as far as the caller can see."""

    @property
    def workers(self) -> int:
        """How many items are worked on at a time."""
        ...

    def imap(
        self, work: Work[In, Out], items: Iterable[In | Pause], watch: Watch[In] | None = None
    ) -> Iterator[Outcome[In, Out]]:
        """Yield one outcome per item, in the order in which they finish.

        Items are taken only as workers become free. Closing the iterator stops all workers at once.

        Args:
            work: called as ``work(item, report)`` in a worker.
            items: may be endless; may yield ``PAUSE``.
            watch: called in the caller's thread as work reports progress.
        """
        ...


def attempt(work: Work[In, Out], item: In, report: Report) -> Outcome[In, Out]:
    """Run work on one item and turn an exception into a value; only Ctrl-C passes."""
    try:
        return Outcome(item, work(item, report))
    except Exception as error:
        return Outcome(item, failure=Failure.of(error))


class Feed(Generic[In]):
    """Hands out items one at a time, those that must be tried again first."""

    def __init__(self, items: Iterable[In | Pause]) -> None:
        self._items: Iterator[In | Pause] = iter(items)
        self._again: deque[tuple[In, int]] = deque()
        self._ended = False

    @property
    def exhausted(self) -> bool:
        """Whether no item will ever come again."""
        return self._ended and not self._again

    def take(self) -> tuple[In, int] | None:
        """Return an item and the number of this attempt, or None when there is none (right now)."""
        if self._again:
            return self._again.popleft()
        if self._ended:
            return None
        item = next(self._items, self)
        if item is self:
            self._ended = True
            return None
        return None if item is PAUSE else (item, 1)  # type: ignore[return-value]

    def worker_died(self, item: In, attempts: int, how: str) -> Outcome[In, Any] | None:
        """Queue an item again, or return its failure when it was tried often enough."""
        if attempts >= MAX_ATTEMPTS:
            return Outcome(item, failure=Failure.death(how))
        self._again.append((item, attempts + 1))
        return None
