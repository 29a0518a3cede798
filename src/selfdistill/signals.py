"""Signals as requests to stop, so that a run first finishes and saves its step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Of a machine or a user that ends the run, Ctrl-C, and SLURM's `--signal=USR1@SECONDS`."""


class Interrupted(BaseException):  # no error, as KeyboardInterrupt is none
    """A signal stopped the run, after it had saved a checkpoint of its last step."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def handled(handler: Callable[[int, object], None], *numbers: int) -> Iterator[None]:
    """Context in which a handler gets these signals; only the main thread may set one."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def raise_interrupted(number: int, frame: object) -> None:
    """Handler that stops at once what has nothing to save."""
    raise Interrupted(number)


class Signals:
    """Record of a received stop signal.

    Attributes:
        signal_number: of the last of `STOP_SIGNALS`, 0 while there was none.
    """

    def __init__(self) -> None:
        self.signal_number = 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Context in which stop signals are recorded; a second SIGINT interrupts at once."""

        def record(number: int, frame: object) -> None:
            if self.signal_number == number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal_number = number

        with handled(record, *STOP_SIGNALS):
            yield
