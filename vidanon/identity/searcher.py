"""Have w searched for in a process of its own: torch and two networks would stay with the run to its end."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

from vidanon.types import Float

if TYPE_CHECKING:
    from vidanon.identity.estrange import Sight
    from vidanon.identity.search import Search

_log = logging.getLogger(__name__)


class Task(NamedTuple):
    """What is searched for.

    Attributes:
        models: folder with the model files.
        device: ``cpu`` or ``cuda``.
        workers: threads.
        directions: float32 (512, n), those in which w may go, each as long as one standard deviation.
        wanted: float32 (128,), unit length, the fictional person.
    """

    models: Path
    device: str
    workers: int
    directions: Float
    wanted: Float


class Searcher:
    """A :class:`vidanon.identity.search.Search` in another process; what it is sent stays in memory.

    Used as a context, at whose end the process is no more. It begins when it is first asked to go on.

    Args:
        task: says what is searched for; called where anything is.
    """

    def __init__(self, task: Callable[[], Task]) -> None:
        self._task = task
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def go_on(self, sights: list[Sight], aim: float) -> Float | None:
        """Go on from where the composites were drawn, see :meth:`vidanon.identity.search.Search.go_on`.

        Returns:
            float32 (512,), the new shift; None where the process is gone, killed perhaps for want of memory.

        Raises:
            ModelsError: a model is missing.
        """
        orders: list[object] = [(sights, aim)]
        if self._process is None:
            self._process = _start()  # it loads torch while the task is found out
            orders.insert(0, self._task())
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            for order in orders:
                _send(self._process.stdin, order)
            reply = pickle.load(self._process.stdout)  # noqa: S301 - from our own process
        except (OSError, EOFError, pickle.UnpicklingError):
            _log.warning("the search for a face further from the source ended before its time")
            return None
        if isinstance(reply, Exception):
            raise reply
        shift: Float = reply
        return shift


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _send(pipe: IO[bytes], message: Any) -> None:
    pickle.dump(message, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def main() -> None:
    """Serve the process at the other end of stdin and stdout until it hangs up."""
    orders, replies = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may be written between the replies
    try:
        _serve(orders, replies)
    except (EOFError, KeyboardInterrupt):
        return


def _serve(orders: IO[bytes], replies: IO[bytes]) -> None:
    import vidanon.identity.search  # noqa: F401 - takes seconds, and is needed in any case

    task: Task = pickle.load(orders)  # noqa: S301 - from our own process
    search: Search | None = None
    with ThreadPoolExecutor(task.workers) as pool:
        while True:
            sights, aim = pickle.load(orders)  # noqa: S301
            try:
                search = search or _begin(task)
                _send(replies, search.go_on(sights, aim, pool))
            except Exception as error:  # the run is to say what it was
                _send(replies, error)


def _begin(task: Task) -> Search:
    from vidanon.identity.search import Search
    from vidanon.models.registry import ModelStore
    from vidanon.networks.likeness import Likeness

    likeness = Likeness(ModelStore(task.models, offline=True)).to(task.device)
    return Search(likeness, task.directions, task.wanted)


if __name__ == "__main__":
    main()
