"""Progress of a training run on the terminal."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ..engine.callback import Callback
from .terminal import clock, console, percent, scored

_MAX_KINDS = 6  # of loss terms in a line


class TerminalProgress(Callback):
    """A line for each epoch, and on a terminal a progress bar of the steps below them.

    Args:
        epochs: of the run.
        metric: name of the validation score in the line of an epoch.
    """

    def __init__(self, epochs: int, metric: str = "accuracy") -> None:
        self.epochs, self.metric = epochs, metric
        self.bar = _Bar(console=console, transient=True) if console.is_terminal else None
        self.start: tuple[float, int] | None = None  # time and step of the first step
        self.global_step = self.total_steps = 0
        self.throughput = ""

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()

    def on_start(self, summary: dict[str, str]) -> None:
        """Print the summary as one block."""
        block = Table.grid(padding=(0, 2))
        block.add_column(style="bold")
        block.add_column(overflow="fold")
        for name, text in summary.items():
            block.add_row(name, Text(text))
        console.print(block, "")

    def on_step(self, step: int, total_steps: int) -> None:
        """Move the bar."""
        self.start = self.start or (time.perf_counter(), step)
        self.global_step, self.total_steps = step, total_steps
        if self.bar:
            epoch = -(-step * self.epochs // total_steps)
            self.bar.move(step, total_steps, f"epoch {epoch}/{self.epochs}", self._time_left())

    def on_log(self, entry: dict[str, Any], total_steps: int) -> None:
        """Show the loss terms under the bar."""
        self.throughput = f"{entry['images_per_second']:,.0f} img/s"
        if self.bar:
            self.bar.terms = "  ".join([*_terms(entry["losses"]), self.throughput])

    def on_epoch(self, entry: dict[str, Any]) -> None:
        """Print a line that stays."""
        width = len(str(self.epochs))
        columns = [f"epoch {entry['epoch'] + 1:>{width}}/{self.epochs}", *_terms(entry["losses"])]
        score = entry.get("val", {}).get("student", {}).get(self.metric)
        if score is not None:
            columns.append(f"{scored('val', self.metric)} {percent(score):>7}")
        columns += [self.throughput] if self.throughput else []
        if self._time_left() and self.global_step < self.total_steps:
            columns.append(f"{self._time_left()} left")
        self.on_message("  ".join(columns))

    def on_message(self, text: str) -> None:
        """Print a line."""
        console.print(text, soft_wrap=True)
        sys.stdout.flush()  # a log file is followed line by line

    def _time_left(self) -> str:
        """Time to the end at the average speed so far, validation included."""
        if not self.start or self.global_step == self.start[1]:
            return ""
        time_zero, first = self.start
        seconds_per_step = (time.perf_counter() - time_zero) / (self.global_step - first)
        return clock(seconds_per_step * (self.total_steps - self.global_step))


class _Bar(Progress):
    """A progress bar, and a line of loss terms under it."""

    terms = ""

    def __init__(self, **keys: Any) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[left]}"),
        )
        super().__init__(*columns, refresh_per_second=4, expand=True, **keys)
        self.task = self.add_task("getting ready", total=None, left="", visible=False)

    def get_renderables(self) -> list[RenderableType]:  # type: ignore[override]
        """Bar and loss terms."""
        bars = self.make_tasks_table(self.tasks)
        return [bars, Text(self.terms, style="dim", overflow="ellipsis", no_wrap=True)]

    def move(self, step: int, total: int, epoch: str, left: str) -> None:
        """Show this step."""
        left = f"{left} left" if left else ""
        self.update(
            self.task, completed=step, total=total, description=epoch, left=left, visible=True
        )


def _terms(losses: dict[str, float]) -> list[str]:
    """`loss 2.31`, and if there are several kinds of terms the sum of each kind.

    A kind is the part of a term's name before the slash: `soft/1` and `soft/2` are `soft`.
    """
    kinds: dict[str, float] = {}
    for name, value in losses.items():
        kind = name.partition("/")[0]
        kinds[kind] = kinds.get(kind, 0.0) + value
    columns = [f"loss {sum(losses.values()):.3f}"]
    if len(kinds) > 1:
        columns += [f"{kind} {value:.3f}" for kind, value in list(kinds.items())[:_MAX_KINDS]]
    return columns
