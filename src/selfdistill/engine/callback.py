"""Hooks into a training run."""

from collections.abc import Sequence
from typing import Any

from ..errors import check_kind


class Callback:
    """Observer of a training run; a subclass overrides the hooks that it needs.

    With several processes, only the first one calls the hooks.

    Examples:
        >>> from selfdistill import train
        >>> class PrintLoss(Callback):
        ...     def on_log(self, entry, total_steps):
        ...         print(entry["step"], total_steps, sum(entry["losses"].values()))
        >>> run = train(data="digits", epochs=1, callback=PrintLoss())  # doctest: +SKIP
    """

    def on_start(self, summary: dict[str, str]) -> None:
        """Runs before training; `summary` describes method, network, data, device and directory."""

    def on_step(self, step: int, total_steps: int) -> None:
        """Runs after each optimizer step; `step` counts from 1."""

    def on_log(self, entry: dict[str, Any], total_steps: int) -> None:
        """Runs after a line of kind "step" was written to metrics.jsonl."""

    def on_epoch(self, entry: dict[str, Any]) -> None:
        """Runs after a line of kind "epoch" was written to metrics.jsonl."""

    def on_result(self, entry: dict[str, Any]) -> None:
        """Runs after the line of kind "final" was written to metrics.jsonl: the final scores."""

    def on_message(self, text: str) -> None:
        """Receives a warning or a notice about the run, one sentence."""

    def on_finish(self) -> None:
        """Runs after the trained network was evaluated and all files of the run were written."""


class Callbacks(Callback):
    """Several observers, called in order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        for each in callbacks:
            check_kind(
                "a callback", each, Callback, "an object of a class made from selfdistill.Callback"
            )
        self.callbacks = tuple(callbacks)

    def on_start(self, summary: dict[str, str]) -> None:
        """Call all."""
        for callback in self.callbacks:
            callback.on_start(summary)

    def on_step(self, step: int, total_steps: int) -> None:
        """Call all."""
        for callback in self.callbacks:
            callback.on_step(step, total_steps)

    def on_log(self, entry: dict[str, Any], total_steps: int) -> None:
        """Call all."""
        for callback in self.callbacks:
            callback.on_log(entry, total_steps)

    def on_epoch(self, entry: dict[str, Any]) -> None:
        """Call all."""
        for callback in self.callbacks:
            callback.on_epoch(entry)

    def on_result(self, entry: dict[str, Any]) -> None:
        """Call all."""
        for callback in self.callbacks:
            callback.on_result(entry)

    def on_message(self, text: str) -> None:
        """Call all."""
        for callback in self.callbacks:
            callback.on_message(text)

    def on_finish(self) -> None:
        """Call all."""
        for callback in self.callbacks:
            callback.on_finish()
