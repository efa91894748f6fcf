"""Actors on a Ray cluster. Only paths, settings and results travel; frames never leave their worker."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic

from vidanon.errors import DeviceError, SettingsError
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

OBJECT_STORE_BYTES = 100 * 1024 * 1024  # results are small; Ray would take a third of the memory
MAX_FAILED_STARTS = 4  # in a row


class RayExecutor:
    """One actor per worker, each with one item at a time; one whose node dies is placed elsewhere."""

    def __init__(self, workers: int, threads: int = 1, gpus: float = 0.0, address: str = "local") -> None:
        """Remember what to start; Ray is started or joined by :meth:`imap`.

        Raises:
            SettingsError: Ray is not installed.
        """
        try:
            import ray
        except ImportError as error:
            raise SettingsError(
                "the ray executor needs Ray; run: pip install 'vidanon[ray]', or use --executor processes"
            ) from error
        self.workers = workers
        self._threads, self._gpus, self._address = threads, gpus, address
        self._ray: Any = ray

    def imap(
        self, work: Work[In, Out], items: Iterable[In | Pause], watch: Watch[In] | None = None
    ) -> Iterator[Outcome[In, Out]]:
        """See :class:`vidanon.jobs.executors.base.Executor`."""
        started = self._start()
        crew = _Crew[In](self._ray, self._actor_class(), self._ray.put(work), self.workers)
        try:
            yield from crew.run(Feed(items), watch)
        finally:
            crew.stop()
            if started:
                self._ray.shutdown()

    def _start(self) -> bool:
        """Start or join Ray unless the caller has done so."""
        if self._ray.is_initialized():
            return False
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent home
        # Its default, which it warns of, is to hide GPUs from actors that asked for none.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        try:
            if self._address == "local":
                self._ray.init(
                    address="local",
                    num_cpus=self.workers * self._threads,
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    **quiet,
                )
            else:
                self._ray.init(address=self._address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DeviceError(
                f"Ray at '{self._address}' cannot be reached ({error}); check 'ray status'"
            ) from error
        return True

    def _actor_class(self) -> Any:
        # Two threads: one works, one answers how far it is.
        return self._ray.remote(
            num_cpus=self._threads,
            num_gpus=self._gpus,
            max_concurrency=2,
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )(_Actor)


class _Actor:
    """Lives on some node and keeps ``work``, with whatever that has loaded."""

    def __init__(self, work: Work[Any, Any]) -> None:
        self._work = work
        self._state = ("", 0, 0)

    def ready(self) -> None:
        """Answer once the actor is placed."""

    def state(self) -> tuple[str, int, int]:
        """Return how far the present item is."""
        return self._state

    def run(self, item: Any) -> tuple[Any, Failure | None]:
        """Work on one item."""
        outcome: Outcome[Any, Any] = attempt(self._work, item, self._report)
        return outcome.value, outcome.failure

    def _report(self, name: str, done: int, total: int) -> None:
        self._state = (name, done, total)


@dataclass(slots=True, eq=False)
class _Member(Generic[In]):
    """An actor, what it is doing, and the answers that are awaited of it."""

    actor: Any
    answer: Any
    state: Any = None
    item: tuple[In, int] | None = None


class _Crew(Generic[In]):
    """The actors of one run."""

    def __init__(self, ray: Any, actor_class: Any, work: Any, limit: int) -> None:
        self._ray, self._actor_class, self._work, self._limit = ray, actor_class, work, limit
        self._members: list[_Member[In]] = []
        self._free: list[_Member[In]] = []
        self._failed_starts = 0

    def run(self, feed: Feed[In], watch: Watch[In] | None) -> Iterator[Outcome[In, Any]]:
        self._replenish()
        while True:
            yield from self._hand_out(feed)
            if feed.exhausted and not any(member.item for member in self._members):
                return
            for member in self._awaited():
                yield from self._settle(member, feed)
            if watch is not None:
                self._look(watch)

    def stop(self) -> None:
        for member in self._members:
            self._ray.kill(member.actor)

    def _replenish(self) -> None:
        """Ask for actors up to the limit; those that do not fit yet wait for a node."""
        while len(self._members) < self._limit:
            actor = self._actor_class.remote(self._work)
            self._members.append(_Member(actor, actor.ready.remote()))

    def _hand_out(self, feed: Feed[In]) -> Iterator[Outcome[In, Any]]:
        while self._free:
            taken = feed.take()
            if taken is None:
                return
            member = self._free[-1]
            try:
                member.answer = member.actor.run.remote(taken[0])
            except Exception as error:  # pickle raises what it likes
                yield Outcome(taken[0], failure=Failure.of(error))
                continue
            member.item = taken
            self._free.pop()

    def _awaited(self) -> list[_Member[In]]:
        """Wait a moment; return the members whose answer has come."""
        by_answer = {member.answer: member for member in self._members if member.answer is not None}
        if not by_answer:
            time.sleep(POLL_S)
            return []
        ready, _ = self._ray.wait(list(by_answer), num_returns=1, timeout=POLL_S)
        if ready:  # there may be more, which need no further waiting
            ready, _ = self._ray.wait(list(by_answer), num_returns=len(by_answer), timeout=0)
        return [by_answer[answer] for answer in ready]

    def _settle(self, member: _Member[In], feed: Feed[In]) -> Iterator[Outcome[In, Any]]:
        """Take an answer: an actor has been placed, an item is done, or the actor has died."""
        errors = self._ray.exceptions
        answer, member.answer, taken = member.answer, None, member.item
        outcome: Outcome[In, Any] | None = None
        try:
            result = self._ray.get(answer)
        except (errors.RayActorError, errors.ObjectLostError, errors.OutOfMemoryError) as error:
            self._members.remove(member)
            self._ray.kill(member.actor)
            self._count_failed_start(member, error)
            self._replenish()
            if taken:
                outcome = feed.worker_died(*taken, " ".join(str(error).split())[:200])
        except errors.RayError as error:  # a value that cannot be pickled
            outcome = Outcome(taken[0], failure=Failure.of(error)) if taken else None
            self._free.append(member)
        else:
            outcome = Outcome(taken[0], *result) if taken else None
            self._free.append(member)
            self._failed_starts = 0
        member.item = member.state = None
        if outcome is not None:
            yield outcome

    def _count_failed_start(self, member: _Member[In], error: Exception) -> None:
        """Give up when actors cannot even start, or starting them would go on for ever."""
        if member.item is not None:
            return
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            reason = " ".join(str(error).split())[-200:]
            raise DeviceError(
                f"workers cannot start; install the same vidanon on every node of the cluster ({reason})"
            ) from error

    def _look(self, watch: Watch[In]) -> None:
        """Ask working actors how far they are, never waiting for the answer."""
        for member in self._members:
            if member.item is None:
                continue
            if member.state is None:
                member.state = member.actor.state.remote()
            elif self._ray.wait([member.state], timeout=0)[0]:
                try:
                    name, done, total = self._ray.get(member.state)
                except self._ray.exceptions.RayError:
                    continue  # its death shows in the answer that is awaited
                finally:
                    member.state = None
                if name:
                    watch(member.item[0], name, done, total)
