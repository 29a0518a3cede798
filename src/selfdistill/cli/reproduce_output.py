"""Output of `selfdistill reproduce`: the list of rows, reproduced scores and smoke tests."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Self

from ..engine.quiet_lightning import quiet_lightning
from ..reproduction.gap import ReportedGap
from ..reproduction.paper_row import PaperRow
from ..reproduction.reported_value import ReportedValue
from ..reproduction.reproduce import (
    PlannedRun,
    Reproduction,
    ReproductionCallback,
    measured_values,
)
from ..reproduction.smoke import smoke_test
from ..runs.progress import TerminalProgress
from ..runs.terminal import console
from .console import echo, table
from .errors import error_message


class ReproductionScreen(ReproductionCallback):
    """Prints the row, a heading for each run, and the progress of its training."""

    def __init__(self) -> None:
        self.terminal = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.terminal.close()

    def on_start(self, row: PaperRow, runs: list[PlannedRun]) -> None:
        """Print all that is known of the row."""
        show_row(row)

    def on_run_start(self, run: PlannedRun) -> TerminalProgress | None:
        """Print the heading."""
        finished = ": trained already" if run.finished else ""
        echo(f"\n{run.row.name}, seed {run.recipe.seed}{finished}", "bold")
        return (
            None
            if run.finished
            else self.terminal.enter_context(TerminalProgress(run.recipe.epochs))
        )

    def on_run_end(self, run: PlannedRun) -> None:
        """Remove the progress bar."""
        self.terminal.close()


def show_rows(rows: Sequence[PaperRow]) -> None:
    """Print a line for each row; of a single row all that is known."""
    if len(rows) == 1:
        show_row(rows[0])
        return
    lines = [
        (
            row.name,
            format_figures(row.published),
            format_figures(measured_values(row)),
            "no" if row.not_runnable_reason else "yes",
        )
        for row in rows
    ]
    if not console.is_terminal:  # one a line, for grep and its kin
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for cells in lines:
            echo("  ".join(f"{c:{w}}" for c, w in zip(cells, widths, strict=True)).rstrip())
        return
    listing = table("row", "published", "ours", "runs")
    for cells in lines:
        listing.add_row(*cells)
    console.print(listing)
    reasons = Counter(row.not_runnable_reason for row in rows if row.not_runnable_reason)
    echo(f"\n{len(rows)} rows, of which {len(rows) - reasons.total()} can be run.")
    for reason, count in reasons.items():
        echo(f"no, {count}: {reason}", "dim")
    echo("selfdistill reproduce --list ROW prints all that is known of a row.", "dim")


def show_row(row: PaperRow) -> None:
    """Print all that is known of a row, a line each."""
    measured = ", ".join(f"{name} {v} (n={v.n})" for name, v in measured_values(row).items())
    echo("\n".join(row.description()))
    echo(f"Ours, last epoch, test: {measured or 'not measured yet'}")


def format_figures(figures: Mapping[str, ReportedValue]) -> str:
    """Figures of the student, of a pair of networks, or of the only exit."""
    if len(figures) == 1:
        ((name, figure),) = figures.items()
        return f"{figure}" if name == "student" else f"{name} {figure}"
    networks = [
        f"{figure}"
        for name, figure in figures.items()
        if name == "student" or name.startswith("peer")
    ]
    return " / ".join(networks) or "–"


def show_reproduction(reproduction: Reproduction) -> None:
    """Print our scores next to the published ones."""
    row, scores = reproduction.row, reproduction.scores
    has_best = any(score.best for score in scores)
    columns = ["predictor", ">published", ">last epoch, test", ">ours − published", "verdict"]
    comparison = table(*columns, *([">best epoch, validation"] if has_best else []))
    for score in scores:
        gap = score.gap
        comparison.add_row(
            score.predictor,
            f"{score.published or '–'}",
            f"{score.last}",
            _format_gap(gap) if gap else "–",
            gap.significance.value if gap else "",
            *([f"{score.best}"] if has_best else []),
        )
    echo(f"\n{row.metric}, mean ± standard deviation of n = {scores[0].last.n}", "bold")
    console.print(comparison)
    echo(f"\nThe published figures' epoch: {row.epoch}.")
    if not has_best:
        echo(
            "No image was held out, so there is no best epoch; --val-fraction 0.1 holds out a "
            "tenth."
        )
    echo(f"\nWritten: {reproduction.table}")


def _format_gap(gap: ReportedGap) -> str:
    """`+0.31`, with the half width of its interval."""
    interval = f" (± {gap.half_width:.2f})" if gap.half_width is not None else ""
    return f"{gap.difference:+.2f}{interval}"


def run_smoke_tests(rows: Sequence[PaperRow], device: str) -> None:
    """Smoke test each row, and print a line for each step; exit code 1 if a row fails."""
    start = time.perf_counter()
    with quiet_lightning():
        passed = sum([_run_smoke_test(row, device) for row in rows])
    echo(f"\n{passed} of {len(rows)} rows passed, {time.perf_counter() - start:.0f} s")
    if passed < len(rows):
        raise SystemExit(1)


def _run_smoke_test(row: PaperRow, device: str) -> bool:
    echo(f"\n{row.name}", "bold")
    for check in smoke_test(row, device):
        if check.error:
            name = type(check.error).__name__
            message = error_message(check.error)[0] or f"{name}: {check.error}"
            echo(f"  {check.step:9} failed: {' '.join(message.split())}", "red")
            return False
        echo(f"  {check.step:9} ok  {check.seconds:5.1f} s  {check.result}")
    return True
