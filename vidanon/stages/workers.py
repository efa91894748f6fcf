"""Map over frames on worker threads, in order, holding only a few of them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

TRIM_EVERY_ITEMS = 60
MOST_LIGHT = 4
"""So many times as many results may wait where those that are done hold little."""


def worker_pool(workers: int) -> ThreadPoolExecutor:
    """Return threads for so many workers, and one more.

    As many networks as there are workers run at a time (:class:`vidanon.networks.runtime.OpenVinoNetwork`),
    and what is done between them needs a thread that does not wait for one. On two cores the sample clip
    takes 4 % less time so.
    """
    return ThreadPoolExecutor(workers + 1)


def ordered_map(
    pool: ThreadPoolExecutor,
    work: Callable[[In], Out],
    items: Iterable[In],
    ahead: int,
    is_light: Callable[[Out], bool] | None = None,
) -> Iterator[Out]:
    """Map over items in threads, in order.

    Args:
        pool: the threads.
        work: what is done with each item.
        items: taken from one thread, the caller's.
        ahead: so many results may wait at most.
        is_light: says which results hold so little that ``MOST_LIGHT`` times as many may wait.
    """
    waiting: deque[Future[Out]] = deque()

    def weighs(result: Future[Out]) -> bool:
        return is_light is None or not result.done() or not is_light(result.result())

    for number, item in enumerate(items, start=1):
        waiting.append(pool.submit(work, item))
        while len(waiting) > MOST_LIGHT * ahead or sum(map(weighs, waiting)) > ahead:
            yield waiting.popleft().result()
        if number % TRIM_EVERY_ITEMS == 0:
            _trim_memory()
    while waiting:
        yield waiting.popleft().result()
    _trim_memory()


def windowed(items: Iterable[In], reach: int, center_of: Callable[[list[In], int], Out]) -> Iterator[Out]:
    """Yield ``center_of(window, centre)`` per item; a window holds ``reach`` neighbours on each side."""
    window: list[In] = []
    center = 0
    for item in items:
        window.append(item)
        if len(window) - 1 - center >= reach:
            yield center_of(window, center)
            center += 1
            if center > reach:
                window.pop(0)
                center -= 1
    for index in range(center, len(window)):
        yield center_of(window, index)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep OpenCV and the matrix products of numpy from starting threads: the workers fill the cores.

    Those of OpenBLAS also spin for a while after every product, and take the cores from the workers.
    """
    import cv2
    from threadpoolctl import threadpool_limits

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1, "blas"):
            yield
    finally:
        cv2.setNumThreads(before)


def release_memory() -> None:
    """Free what a finished pass left behind: its decoders and encoders lie in cycles of references."""
    gc.collect()
    _trim_memory()


def _trim_memory() -> None:
    """Give freed memory back to the system, where the C library can (glibc).

    Frames that one thread allocates and another one frees leave holes in the heaps of all threads, which
    would grow with the length of the video.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
