"""SIGTERM and Ctrl-C as requests, so that a step is finished and saved before a run stops."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):  # noqa: N818  no error: the run is saved and can go on
    """A signal asked the run to stop; its last checkpoint is of this step."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Signals:
    """Remembers which signal came.

    Attributes:
        asked: its number, 0 while there was none.
    """

    def __init__(self) -> None:
        self.asked = 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Inside, SIGTERM and a first SIGINT only ask; a second SIGINT interrupts at once."""

        def ask(number: int, frame: object) -> None:
            if self.asked == number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = number

        try:
            before = {n: signal.signal(n, ask) for n in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: signals are somebody else's
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
