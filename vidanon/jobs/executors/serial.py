"""One item after the other in this process."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import partial

from vidanon.jobs.executors.base import POLL_S, Feed, In, Out, Outcome, Pause, Watch, Work, attempt


def _unwatched(name: str, done: int, total: int) -> None:
    """Nobody wants to know."""


class SerialExecutor:
    """A full executor without any worker: the simplest to debug."""

    workers = 1

    def imap(
        self, work: Work[In, Out], items: Iterable[In | Pause], watch: Watch[In] | None = None
    ) -> Iterator[Outcome[In, Out]]:
        """See :class:`vidanon.jobs.executors.base.Executor`."""
        feed = Feed(items)
        while not feed.exhausted:
            taken = feed.take()
            if taken is not None:
                item, _ = taken
                yield attempt(work, item, partial(watch, item) if watch else _unwatched)
            elif not feed.exhausted:
                time.sleep(POLL_S)
