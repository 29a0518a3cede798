"""How many images are trained in a second."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Throughput:
    """Images a second since the last reading, without what is done between the steps."""

    def __init__(self) -> None:
        self.images, self.start = 0, time.perf_counter()

    def read(self) -> float:
        """Images a second since this was read last."""
        now = time.perf_counter()
        rate = self.images / (now - self.start)
        self.images, self.start = 0, now
        return rate

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context whose time does not count: of validation, saving and callbacks.

        If the rate is read in it, what comes before that still counts.
        """
        begun = time.perf_counter()
        yield
        now = time.perf_counter()
        self.start = now if self.start > begun else self.start + now - begun
