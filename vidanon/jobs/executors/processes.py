"""Worker processes on this machine, started afresh ("spawn"): threads and CUDA do not survive a fork."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic

from vidanon.jobs.executors.base import (
    POLL_S,
    Failure,
    Feed,
    In,
    Out,
    Outcome,
    Pause,
    Watch,
    Work,
    attempt,
)

REPORT_EVERY_S = 0.25
STOP_WITHIN_S = 5.0


class ProcessExecutor:
    """A fixed number of processes, each with one item at a time; one that dies is replaced."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def imap(
        self, work: Work[In, Out], items: Iterable[In | Pause], watch: Watch[In] | None = None
    ) -> Iterator[Outcome[In, Out]]:
        """See :class:`vidanon.jobs.executors.base.Executor`."""
        feed = Feed(items)
        crew: list[_Worker[In]] = []
        try:
            while True:
                yield from _hand_out(feed, crew, work, self.workers)
                busy = [worker for worker in crew if worker.busy]
                if not busy and feed.exhausted:
                    return
                # Free workers while the feed is not exhausted: it is pausing and must be asked again.
                waiting = not feed.exhausted and len(busy) < self.workers
                ready = wait([worker.pipe for worker in busy], POLL_S if waiting else None)
                if not busy:
                    time.sleep(POLL_S)
                for worker in busy:
                    if worker.pipe in ready:
                        yield from _listen(worker, crew, feed, watch)
        finally:
            for worker in crew:
                worker.process.terminate()
            for worker in crew:
                worker.stop()


class _Worker(Generic[In]):
    """A process, its pipe, and what it is doing."""

    def __init__(self, work: Work[In, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()
        self.item: tuple[In, int] | None = None

    @property
    def busy(self) -> bool:
        return self.item is not None

    def give(self, item: In, attempts: int) -> None:
        """Send an item; a process that is already dead is found out when its pipe is read."""
        self.item = (item, attempts)
        data = ForkingPickler.dumps(item)
        try:
            self.pipe.send_bytes(data)
        except OSError:
            self.process.join(STOP_WITHIN_S)

    def stop(self) -> None:
        self.process.join(STOP_WITHIN_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()
        self.process.close()


def _hand_out(
    feed: Feed[In], crew: list[_Worker[In]], work: Work[In, Out], limit: int
) -> Iterator[Outcome[In, Out]]:
    """Give free workers an item each, starting workers as needed; yield items that cannot be sent."""
    while True:
        free = next((worker for worker in crew if not worker.busy), None)
        if free is None and len(crew) >= limit:
            return
        taken = feed.take()
        if taken is None:
            return
        if free is None:
            free = _Worker(work)
            crew.append(free)
        try:
            free.give(*taken)
        except Exception as error:  # pickle raises what it likes
            free.item = None
            yield Outcome(taken[0], failure=Failure.of(error))


def _listen(
    worker: _Worker[In], crew: list[_Worker[In]], feed: Feed[In], watch: Watch[In] | None
) -> Iterator[Outcome[In, Any]]:
    """Read one message of a worker."""
    assert worker.item is not None, "only busy workers are listened to"
    item, attempts = worker.item
    try:
        kind, value = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join(STOP_WITHIN_S)
        how = _how_it_ended(worker.process.exitcode)
        crew.remove(worker)
        worker.stop()
        outcome = feed.worker_died(item, attempts, how)
        if outcome is not None:
            yield outcome
        return
    if kind == "report":
        if watch is not None:
            watch(item, *value)
        return
    worker.item = None
    # The caller's own item, not the copy that went to the worker and back.
    yield Outcome(item, value.value, value.failure)


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _serve(pipe: Connection, work: Work[In, Out]) -> None:
    """Take items from the parent until it closes the pipe. Runs in the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lock = threading.Lock()
    last = -REPORT_EVERY_S

    def report(name: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_EVERY_S or done == total:
            last = now
            with lock:
                pipe.send(("report", (name, done, total)))

    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        outcome = attempt(work, item, report)
        with lock:
            try:
                pipe.send(("done", Outcome(None, outcome.value, outcome.failure)))
            except Exception as error:  # a value that cannot be pickled
                pipe.send(("done", Outcome(None, failure=Failure.of(error))))


def _end_with_parent() -> None:
    """End this process when the parent is gone, even by kill -9, so that no orphan goes on writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker only"
    parent.join()
    os._exit(1)
