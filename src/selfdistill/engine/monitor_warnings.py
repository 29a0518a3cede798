"""Warnings about a method's monitors, each once a run."""

from collections.abc import Mapping

from ..core import Method
from .callback import Callback

_SETTLING_STEPS = 500  # a critic is at chance until it has learned


class MonitorWarnings:
    """What a method says of its monitors, after a fifth of the run, two epochs and 500 steps.

    Args:
        method: its `diagnose` warns.
        callback: is told, in a line a warning.
        steps_per_epoch, total: of the run.
    """

    def __init__(
        self, method: Method, callback: Callback, steps_per_epoch: int, total: int
    ) -> None:
        self.method, self.callback = method, callback
        self.settled = max(total // 5, 2 * steps_per_epoch, _SETTLING_STEPS)
        self.reported: set[str] = set()

    def report(self, epoch: int, step: int, monitors: Mapping[str, float]) -> None:
        """Warn of monitors that were not warned of before."""
        if step < self.settled:
            return
        warned = self.method.diagnose(monitors)
        new = [name for name in warned if name not in self.reported]
        self.reported.update(new)
        for warning in dict.fromkeys(warned[name] for name in new):
            names = [name for name in new if warned[name] == warning]
            self.callback.on_message(f"epoch {epoch + 1}: {', '.join(names)}: {warning}")
