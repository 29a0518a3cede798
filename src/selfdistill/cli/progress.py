"""Progress of a training run on a terminal."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from .console import clock, console, percent, scored

_MAX_KINDS = 6  # of loss terms in a line


class Terminal:
    """A line for each epoch, and below them on a terminal a progress bar of the steps.

    Args:
        epochs: of the run.
        metric: score that is shown after each epoch, by its name in the metrics.
    """

    def __init__(self, epochs: int, metric: str = "accuracy") -> None:
        self.epochs, self.metric = epochs, metric
        self.bar = _Bar(console=console, transient=True) if console.is_terminal else None
        self.start: tuple[float, int] | None = None  # time and step
        self.current_step = self.total_steps = 0
        self.rate = ""

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()

    def begin(self, facts: dict[str, str]) -> None:
        """Print a block of facts: method, network, data, device and directory."""
        block = Table.grid(padding=(0, 2))
        block.add_column(style="bold")
        block.add_column(overflow="fold")
        for name, text in summary.items():
            block.add_row(name, Text(text))
        console.print(block, "")

    def advance(self, step: int, total: int) -> None:
        """Move the bar to this optimizer step."""
        self.start = self.start or (time.perf_counter(), step)
        self.current_step, self.total_steps = step, total
        if self.bar:
            epoch = -(-step * self.epochs // total)
            self.bar.move(step, total, f"epoch {epoch}/{self.epochs}", self._time_left())

    def step(self, entry: dict[str, Any], total: int) -> None:
        """Show the latest loss terms."""
        self.rate = f"{entry['images_per_second']:,.0f} img/s"
        if self.bar:
            self.bar.terms = "  ".join([*_terms(entry["losses"]), self.throughput])

    def epoch(self, entry: dict[str, Any]) -> None:
        """Print the line of an epoch."""
        width = len(str(self.epochs))
        columns = [f"epoch {entry['epoch'] + 1:>{width}}/{self.epochs}", *_terms(entry["losses"])]
        score = entry.get("val", {}).get("student", {}).get(self.metric)
        if score is not None:
            columns.append(f"{scored('val', self.metric)} {percent(score):>7}")
        columns += [self.rate] if self.rate else []
        time_left = self._time_left() if self.current_step < self.total_steps else ""
        columns += [f"{time_left} left"] if time_left else []
        self._print_line("  ".join(columns))

    def say(self, sentence: str) -> None:
        """Print a line between those of the epochs."""
        self._print_line(sentence)

    def _print_line(self, text: str) -> None:
        console.print(text, soft_wrap=True)
        sys.stdout.flush()  # for those who follow a log file

    def _time_left(self) -> str:
        """Time to the end at the average speed so far, validation included."""
        if not self.start or self.current_step == self.start[1]:
            return ""
        start_time, start_step = self.start
        seconds = (time.perf_counter() - start_time) / (self.current_step - start_step)
        return clock(seconds * (self.total_steps - self.current_step))


class _Bar(Progress):
    """Progress bar with a line of loss terms under it."""

    terms = ""

    def __init__(self, **keys: Any) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[left]}"),
        )
        super().__init__(*columns, refresh_per_second=4, expand=True, **keys)
        self.task_id = self.add_task("getting ready", total=None, left="", visible=False)

    def get_renderables(self) -> list[RenderableType]:  # type: ignore[override]
        """Return the bar and the terms."""
        bars = self.make_tasks_table(self.tasks)
        return [bars, Text(self.terms, style="dim", overflow="ellipsis", no_wrap=True)]

    def move(self, step: int, total: int, epoch: str, left: str) -> None:
        """Move to this step."""
        left = f"{left} left" if left else ""
        self.update(
            self.task_id, completed=step, total=total, description=epoch, left=left, visible=True
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
