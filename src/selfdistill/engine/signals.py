"""SIGTERM and Ctrl-C as requests to stop, so that a run first finishes and saves its step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):  # noqa: N818  no error: the run is saved and can go on
    """A signal stopped the run, after it had saved a checkpoint of its last step."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Signals:
    """Record of a received stop signal.

    Attributes:
        signal_number: of the last SIGTERM or SIGINT, 0 while there was none.
    """

    def __init__(self) -> None:
        self.signal_number = 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Context in which SIGTERM and SIGINT are recorded; a second SIGINT interrupts at once."""

        def record(number: int, frame: object) -> None:
            if self.signal_number == number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal_number = number

        try:
            previous = {n: signal.signal(n, record) for n in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread, which alone may handle signals
            previous = {}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
