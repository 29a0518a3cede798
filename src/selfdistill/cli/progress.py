"""What a person sees while a run trains."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from .console import (
    clock,
    console,
    percent,
    scored,
)

_FAMILIES = 6  # of loss terms in a line


class Terminal:
    """A line for each epoch, and below them on a terminal a bar for the step at hand.

    Args:
        epochs: of the whole run.
        metric: the score that is shown after each of them, as the metrics call it.
    """

    def __init__(self, epochs: int, metric: str = "accuracy") -> None:
        self.epochs, self.metric = epochs, metric
        self.bar = _Bar(console=console, transient=True) if console.is_terminal else None
        self.began: tuple[float, int] | None = None
        self.at = self.total = 0
        self.rate = ""

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

    def begin(self, facts: dict[str, str]) -> None:
        """One block: what is trained, by what, on what, where."""
        block = Table.grid(padding=(0, 2))
        block.add_column(style="bold")
        block.add_column(overflow="fold")
        for name, text in facts.items():
            block.add_row(name, Text(text))
        console.print(block, "")

    def advance(self, step: int, total: int) -> None:
        """One more optimizer step is done."""
        self.began = self.began or (time.perf_counter(), step)
        self.at, self.total = step, total
        if self.bar:
            epoch = -(-step * self.epochs // total)
            self.bar.move(step, total, f"epoch {epoch}/{self.epochs}", self._left())

    def step(self, entry: dict[str, Any], total: int) -> None:
        """The newest loss terms."""
        self.rate = f"{entry['images_per_second']:,.0f} img/s"
        if self.bar:
            self.bar.terms = "  ".join([*_terms(entry["losses"]), self.rate])

    def epoch(self, entry: dict[str, Any]) -> None:
        """One line that stays."""
        width = len(str(self.epochs))
        words = [f"epoch {entry['epoch'] + 1:>{width}}/{self.epochs}", *_terms(entry["losses"])]
        score = entry.get("val", {}).get("student", {}).get(self.metric)
        if score is not None:
            words.append(f"{scored('val', self.metric)} {percent(score):>7}")
        words += [self.rate] if self.rate else []
        words += [f"{self._left()} left"] if self._left() and self.at < self.total else []
        self._line("  ".join(words))

    def say(self, sentence: str) -> None:
        """A line among the others."""
        self._line(sentence)

    def _line(self, text: str) -> None:
        console.print(text, soft_wrap=True)
        sys.stdout.flush()  # whoever follows a log file wants it now

    def _left(self) -> str:
        """The time to the end at the average speed so far, validation included."""
        if not self.began or self.at == self.began[1]:
            return ""
        start, first = self.began
        seconds = (time.perf_counter() - start) / (self.at - first) * (self.total - self.at)
        return clock(seconds)


class _Bar(Progress):
    """One task, and a line of terms under it."""

    terms = ""

    def __init__(self, **keys: Any) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.completed}/{task.total} steps"),
            TextColumn("{task.fields[left]}"),
        )
        super().__init__(*columns, refresh_per_second=4, expand=True, **keys)
        self.only = self.add_task("getting ready", total=None, left="", visible=False)

    def get_renderables(self) -> list[RenderableType]:  # type: ignore[override]
        """Bar and terms."""
        bars = self.make_tasks_table(self.tasks)
        return [bars, Text(self.terms, style="dim", overflow="ellipsis", no_wrap=True)]

    def move(self, step: int, total: int, epoch: str, left: str) -> None:
        """Show this step."""
        left = f"{left} left" if left else ""
        self.update(
            self.only, completed=step, total=total, description=epoch, left=left, visible=True
        )


def _terms(losses: dict[str, float]) -> list[str]:
    """`loss 2.31`, and if there are several kinds of terms the sum of each kind.

    A kind is what stands before the stroke of a term's name: `soft/1` and `soft/2` are `soft`.
    """
    kinds: dict[str, float] = {}
    for name, value in losses.items():
        kind = name.partition("/")[0]
        kinds[kind] = kinds.get(kind, 0.0) + value
    words = [f"loss {sum(losses.values()):.3f}"]
    if len(kinds) > 1:
        words += [f"{kind} {value:.3f}" for kind, value in list(kinds.items())[:_FAMILIES]]
    return words
