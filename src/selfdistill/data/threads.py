"""Threads that read the files of a data set, with a bound on the pixels that they hold."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from ..core.machine import num_cores

_MAX_THREADS = 32  # beyond it storage and the interpreter's lock are what is waited for
_MAX_PIXELS = 1 << 27  # about 1 GB: Pillow takes four bytes a pixel, twice while it converts
T = TypeVar("T")
S = TypeVar("S")


class PixelBudget:
    """Pixels that several threads may decode at a time; each thread holds one image.

    An image beyond the limit is decoded while no other is.

    Args:
        limit: number of pixels.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._released, self._thread = threading.Condition(), threading.local()

    def hold(self, pixels: int) -> None:
        """Wait until there is room for an image, in place of the one that this thread held.

        Outside of `membership` nothing is counted.
        """
        if not getattr(self._thread, "member", False):
            return
        self._release()
        with self._released:
            self._released.wait_for(lambda: not self._held or self._held + pixels <= self._limit)
            self._held += pixels
            self._thread.pixels = pixels

    @contextmanager
    def membership(self) -> Iterator[None]:
        """Context in which this thread counts; what it holds ends with it."""
        self._thread.member, self._thread.pixels = True, 0
        try:
            yield
        finally:
            self._release()
            self._thread.member = False

    def _release(self) -> None:
        with self._released:
            self._held -= self._thread.pixels
            self._thread.pixels = 0
            self._released.notify_all()


DECODED = PixelBudget(_MAX_PIXELS)
"""The pixels of all images that `map_in_threads` reads at a time."""


def map_in_threads(work: Callable[[T], S], items: Sequence[T]) -> list[S]:
    """The results in order, computed on as many threads as this process may use cores."""

    def run(item: T) -> S:
        with DECODED.membership():
            return work(item)

    with ThreadPoolExecutor(min(_MAX_THREADS, num_cores())) as pool:
        return list(pool.map(run, items))
