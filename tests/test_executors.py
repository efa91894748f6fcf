"""One contract for every executor, on work that costs nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vidanon.errors import InputError, SettingsError
from vidanon.jobs.executors import PAUSE, Executor, Outcome, Report, make_executor
from vidanon.jobs.executors.base import MAX_ATTEMPTS

WITH_WORKERS = ("processes", "ray")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One Ray for all tests of the module: starting it takes seconds."""
    import ray

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # workers import the functions of this file
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=80 * 1024 * 1024,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()
    patch.undo()


@pytest.fixture(params=["serial", *WITH_WORKERS])
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    return make_executor(request.param, workers=2)


@pytest.fixture(params=WITH_WORKERS)
def workers_executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    return make_executor(request.param, workers=2)


def square(item: int, report: Report) -> int:
    return item * item


def slow_when_even(item: int, report: Report) -> int:
    time.sleep(0.05 if item % 2 == 0 else 0)
    return item


def picky(item: int, report: Report) -> int:
    if item == 1:
        raise InputError("clip.mp4: no such file;\n check the path")
    if item == 2:
        raise ZeroDivisionError("a bug")
    return item


def unpicklable(item: int, report: Report) -> Any:
    return threading.Lock() if item == 1 else item


def reporting(item: int, report: Report) -> int:
    for done in range(1, 11):
        report("render", done, 10)
        time.sleep(0.2)
    return item


def forever(item: int, report: Report) -> None:
    Path(str(item)).touch()
    time.sleep(300)


class DiesOn:
    """Kills its own process on one item: the first time only, or every time."""

    def __init__(self, item: int, marker: Path, always: bool = False) -> None:
        self.item, self.marker, self.always = item, marker, always

    def __call__(self, item: int, report: Report) -> int:
        if item == self.item and (self.always or not self.marker.exists()):
            with self.marker.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return item


class Counting:
    """Remembers how many items this copy has seen: what a worker has loaded stays loaded."""

    seen = 0

    def __call__(self, item: int, report: Report) -> tuple[int, int]:
        self.seen += 1
        time.sleep(0.01)
        return os.getpid(), self.seen


def values(outcomes: Iterator[Outcome[int, Any]]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for outcome in outcomes:
        assert outcome.item not in found, "one outcome per item"
        assert outcome.failure is None, outcome.failure
        found[outcome.item] = outcome.value
    return found


def test_every_item_has_one_outcome_in_whatever_order(executor: Executor) -> None:
    assert values(executor.imap(slow_when_even, range(12))) == {i: i for i in range(12)}


def test_nothing_to_do(executor: Executor) -> None:
    assert list(executor.imap(square, [])) == []


def test_errors_are_values_and_the_others_go_on(executor: Executor) -> None:
    outcomes = {outcome.item: outcome for outcome in executor.imap(picky, range(5))}
    assert [outcomes[i].value for i in (0, 3, 4)] == [0, 3, 4]
    known, bug = outcomes[1].failure, outcomes[2].failure
    assert known is not None and known.exit_code == 3
    assert known.message == "clip.mp4: no such file; check the path" and not known.trace
    assert bug is not None and bug.exit_code == 1
    assert "a bug" in bug.message and "picky" in bug.trace


def test_many_tasks_are_taken_one_by_one(executor: Executor) -> None:
    taken = finished = most_ahead = 0

    def items() -> Iterator[int]:
        nonlocal taken, most_ahead
        for item in range(200):
            taken += 1
            most_ahead = max(most_ahead, taken - finished)
            yield item

    for outcome in executor.imap(square, items()):
        assert outcome.value == outcome.item**2
        finished += 1
    assert finished == 200
    assert most_ahead <= 2 * executor.workers + 1


def test_a_source_may_pause(executor: Executor) -> None:
    assert values(executor.imap(square, [1, PAUSE, 2, PAUSE, PAUSE, 3, PAUSE])) == {1: 1, 2: 4, 3: 9}


def test_progress_arrives_in_the_calling_thread(executor: Executor) -> None:
    seen: list[tuple[int, str, int, int]] = []
    threads = set()

    def watch(item: int, name: str, done: int, total: int) -> None:
        seen.append((item, name, done, total))
        threads.add(threading.current_thread())

    values(executor.imap(reporting, [7], watch))
    assert len(seen) >= 2
    assert {entry[:2] for entry in seen} == {(7, "render")}
    assert [entry[2] for entry in seen] == sorted(entry[2] for entry in seen)
    assert threads == {threading.current_thread()}


def test_work_is_sent_to_a_worker_once(executor: Executor) -> None:
    last: dict[int, int] = {}
    for pid, seen in values(executor.imap(Counting(), range(20))).values():
        last[pid] = max(last.get(pid, 0), seen)
    assert sum(last.values()) == 20
    assert len(last) <= executor.workers


def test_a_value_that_cannot_travel_is_a_failure(workers_executor: Executor) -> None:
    outcomes = {outcome.item: outcome for outcome in workers_executor.imap(unpicklable, range(3))}
    assert outcomes[1].failure is not None and "pickle" in outcomes[1].failure.message
    assert outcomes[0].value == 0 and outcomes[2].value == 2


def test_an_item_that_cannot_travel_is_a_failure(workers_executor: Executor) -> None:
    lock = threading.Lock()
    outcomes = {outcome.item: outcome for outcome in workers_executor.imap(square, [2, lock, 3])}  # type: ignore[list-item]
    assert outcomes[lock].failure is not None  # type: ignore[index]
    assert outcomes[2].value == 4 and outcomes[3].value == 9


def test_an_item_is_done_again_when_its_worker_dies(workers_executor: Executor, tmp_path: Path) -> None:
    work = DiesOn(3, tmp_path / "died")
    assert values(workers_executor.imap(work, range(8))) == {i: i for i in range(8)}
    assert (tmp_path / "died").read_text() == "x"


def test_an_item_that_kills_every_worker_fails_alone(workers_executor: Executor, tmp_path: Path) -> None:
    work = DiesOn(1, tmp_path / "died", always=True)
    outcomes = {outcome.item: outcome for outcome in workers_executor.imap(work, range(4))}
    failure = outcomes[1].failure
    assert failure is not None and f"the worker died {MAX_ATTEMPTS} times" in failure.message
    assert (tmp_path / "died").read_text() == "x" * MAX_ATTEMPTS
    assert [outcomes[i].value for i in (0, 2, 3)] == [0, 2, 3]


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_closing_the_iterator_stops_the_workers() -> None:
    outcomes = make_executor("processes", 2).imap(slow_when_even, iter(range(10**9)))
    next(outcomes)
    assert multiprocessing.active_children()
    outcomes.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "from test_executors import forever\n"
        "from vidanon.jobs.executors import make_executor\n"
        "if __name__ == '__main__':\n"
        f"    items = [{str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}]\n"
        "    list(make_executor('processes', 2).imap(forever, items))\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        wait_for(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
        workers = _children(parent.pid)
        assert len(workers) >= 2
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(_alive(pid) for pid in workers))


def test_ray_started_for_a_run_ends_with_it() -> None:
    code = (
        "from test_executors import square, _children\n"
        "from vidanon.jobs.executors import make_executor\n"
        "import os, time\n"
        "done = list(make_executor('ray', 1).imap(square, [1, 2]))\n"
        "assert sorted(o.value for o in done) == [1, 4], done\n"
        "end = time.monotonic() + 15\n"
        "while _children(os.getpid()) and time.monotonic() < end: time.sleep(0.2)\n"
        "print(_children(os.getpid()))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=90
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_an_unknown_executor_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="choose one of serial, processes, ray"):
        make_executor("dask", 2)


def _stat(pid: int) -> tuple[str, int]:
    """State letter and parent of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[1])


def _alive(pid: int) -> bool:
    try:
        return _stat(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def _children(parent: int) -> list[int]:
    """Processes below ``parent``, at any depth."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, above = _stat(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                parents[int(entry.name)] = above
    found, queue = [], [parent]
    while queue:
        above = queue.pop()
        children = [pid for pid, its_parent in parents.items() if its_parent == above]
        found += children
        queue += children
    return found
