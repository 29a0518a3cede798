"""Output of `selfdistill compare`: a line for each run, and the tables of the comparison."""

import shlex
import time
from pathlib import Path

from ..comparison.compare import Comparison, ComparisonCallback
from ..comparison.grid import Study
from ..comparison.results import (
    RunOutcome,
    describe_difference,
    evaluated_split,
    format_points,
)
from ..core import STUDENT
from ..recipe.presets import describe_preset
from ..runs.terminal import clock, console, percent, scored
from .console import echo, echo_stderr, table

FILES = ("study.html", "summary.csv", "results.csv", "study.toml", "runs/")


class ComparisonScreen(ComparisonCallback):
    """Prints the study, and a line for each run that has ended."""

    path = Path()

    def on_start(self, study: Study, path: Path, num_done: int, launcher: str) -> None:
        """Print rows, seeds and the number of runs."""
        self.study, self.path, self.start = study, path, time.monotonic()
        self.num_runs, self.num_done, self.num_trained = len(study.cells), num_done, 0
        shared = study.shared
        if shared["task"] != "classification":
            echo(f"task     {shared['task']}")
        echo(f"network  {shared['model']}")
        if preset := describe_preset(study.rows[study.baseline]):
            echo(f"preset   {preset}")
        echo(f"data     {shared['data']}")
        echo(f"epochs   {shared['epochs']}")
        echo(f"rows     {', '.join(study.rows)}")
        echo(f"seeds    {', '.join(map(str, study.seeds))}")
        if num_done == self.num_runs:
            echo(f"runs     {self.num_runs}, all of them finished already")
        else:
            finished = f", {num_done} of them finished already" if num_done else ""
            echo(f"runs     {self.num_runs}{finished}; {launcher}\n")

    def on_run_end(self, outcome: RunOutcome, seconds: float) -> None:
        """Print the run, its score or failure, and how long the other runs may take."""
        self.num_done, self.num_trained = self.num_done + 1, self.num_trained + 1
        score = outcome.score(STUDENT, "test")
        score = outcome.score(STUDENT, "val") if score is None else score
        row_width, count_width = max(map(len, self.study.rows)), len(str(self.num_runs))
        columns = [
            f"{self.num_done:>{count_width}} of {self.num_runs}",
            f"{outcome.row:<{row_width}}  seed {outcome.seed}",
            f"failed: {outcome.failure}" if outcome.failure else f"{percent(score):>7}",
            clock(seconds),
        ]
        if num_open := self.num_runs - self.num_done:
            seconds_left = (time.monotonic() - self.start) / self.num_trained * num_open
            columns.append(f"about {clock(seconds_left)} left")
        echo("  ".join(columns))

    def on_message(self, text: str) -> None:
        """Print a warning of a run."""
        echo_stderr("warning", text)


def show_comparison(comparison: Comparison) -> None:
    """Print what helps, the table, each difference as a sentence, and the files."""
    echo(f"\n{comparison.verdict}", "bold")
    _show_table(comparison)
    baseline = comparison.study.baseline
    compared = [result for result in comparison.summary if result.row != baseline]
    for result in compared:
        echo(describe_difference(result, baseline))
    echo("\nWritten:" if compared else "Written:")
    for name in FILES:
        echo(f"  {comparison.path / name}{'/' * name.endswith('/')}")


def show_failures(comparison: Comparison) -> None:
    """Print the runs that failed, if any, and end with the exit code of the first."""
    failed = comparison.failed
    if not failed:
        return
    echo(f"\n{len(failed)} of {len(comparison.outcomes)} runs failed. To try them again:")
    echo(f"  {resume_command(comparison.path)}")
    for outcome in failed:
        echo_stderr("error", f"{outcome.row} seed {outcome.seed} failed: {outcome.failure}")
    raise SystemExit(failed[0].code if failed[0].code > 0 else 7)


def resume_command(path: Path) -> str:
    """Command that resumes a study."""
    return f"selfdistill compare --resume {shlex.quote(str(path))}"


def _show_table(comparison: Comparison) -> None:
    """Print a line for each row, also for one without a result."""
    study, split = comparison.study, evaluated_split(comparison.results)
    score_column = scored(split, study.metric)
    rows = table("row", ">seeds", f">{score_column}", f">minus {study.baseline}")
    results = {result.row: result for result in comparison.summary}
    for row in study.rows:
        result, num_seeds = results.get(row), len(study.seeds)
        num_scores = len(result.scores) if result else 0
        cells = [row, str(num_seeds) if num_scores == num_seeds else f"{num_scores} of {num_seeds}"]
        if result:
            std = "" if result.std is None else f" ± {100 * result.std:.2f}"
            cells.append(f"{100 * result.mean:.2f}{std} %")
            cells += [format_points(result.difference.mean)] if result.difference else []
        rows.add_row(*cells)
    echo()
    console.print(rows)
    echo()
