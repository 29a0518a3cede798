"""Output of `selfdistill doctor --will-it-help`: the short runs, and what they predict."""

import shlex
from pathlib import Path
from typing import Any

from ..comparison.compare import ComparisonCallback
from ..comparison.grid import Study
from ..comparison.prediction import (
    FULL_SEEDS,
    NO_VALIDATION,
    Forecast,
    Prediction,
    ShortRuns,
    Verdict,
    forecast,
)
from ..comparison.results import RunOutcome, format_interval, format_points
from ..core import STUDENT, DataError
from ..runs.terminal import clock, percent
from .console import echo, echo_stderr
from .options import option_name


class ShortRunsScreen(ComparisonCallback):
    """Prints a line for each short run."""

    def on_start(self, study: Study, path: Path, num_done: int, launcher: str) -> None:
        """Print the number of runs."""
        self.num_runs, self.num_done = len(study.cells), 0
        echo(f"{self.num_runs} short runs of {_epochs(study.shared['epochs'])}; {launcher}")

    def on_run_end(self, outcome: RunOutcome, seconds: float) -> None:
        """Print the run with its score or failure."""
        self.num_done += 1
        score = outcome.failure or percent(outcome.score(STUDENT, "val"))
        place = f"{self.num_done} of {self.num_runs}"
        echo(f"{place}  {outcome.row}  seed {outcome.seed}  {score}  {clock(seconds)}")

    def on_message(self, text: str) -> None:
        """Print a warning of a run."""
        echo_stderr("warning", text)


def show_forecast(runs: ShortRuns, *, has_validation: bool) -> None:
    """Make the short runs, and print what they predict, what it cost and how to know.

    Raises:
        DataError: there are no validation images.
        SystemExit: a run failed; with its exit code.
    """
    echo("\nwill it help", "bold")
    if not has_validation:
        raise DataError(NO_VALIDATION)
    result = forecast(runs, ShortRunsScreen())
    echo()
    for prediction in result.predictions:
        echo(describe_prediction(prediction, runs.baseline, runs.epochs), "bold")
    _show_meaning(runs, result)
    for outcome in result.failed:
        echo_stderr("error", f"{outcome.row} seed {outcome.seed} failed: {outcome.failure}")
    if result.failed:
        raise SystemExit(result.failed[0].code if result.failed[0].code > 0 else 7)


def describe_prediction(prediction: Prediction, baseline: str, epochs: int) -> str:
    """The verdict on a row, with the expected difference and its interval, a sentence."""
    points = f"{format_points(prediction.short.mean)} points"
    row, verdict = prediction.row, prediction.verdict
    opening = f"cannot tell whether {row} helps" if verdict is Verdict.CANNOT_TELL else ""
    opening = opening or f"{row} {verdict}"
    if prediction.interval is None:
        n = prediction.short.n
        return f"{opening}: {points} over {baseline} in short runs, of {n} seeds only."
    expected = f"expected {points} over {baseline} after {_epochs(epochs)}"
    return f"{opening}: {expected} ({format_interval(prediction.interval)})."


def _show_meaning(runs: ShortRuns, result: Forecast) -> None:
    record, shorter = runs.calibration, runs.shorter
    echo(
        f"From {len(runs.seeds)} seeds of {_epochs(shorter['epochs'])} on validation images; their "
        f"t interval is widened by {record.widening:.2f} points at both ends, by what became of "
        f"{record.pairs} methods after such runs, and is to hold {percent(record.coverage)} of "
        "differences like theirs (docs/guide/choose.md)."
    )
    if len(result.predictions) > 1:
        echo("Of several predictions the highest is optimistic: it was chosen for being high.")
    echo(f"It took {clock(result.seconds)}. To know takes about {clock(result.full_seconds)}:")
    echo(f"  {full_command(runs)}")


def full_command(runs: ShortRuns) -> str:
    """The comparison at full length, as a command."""
    arguments = ["selfdistill", "compare", "--methods", ",".join(runs.methods)]
    arguments += ["--seeds", f"{runs.seeds[0]}-{runs.seeds[0] + FULL_SEEDS - 1}"]
    if runs.recipe:
        arguments += ["--recipe", str(runs.recipe)]
    for key, value in runs.keys.items():
        arguments += _option_arguments(key, value)
    return shlex.join(arguments)


def _option_arguments(key: str, value: Any) -> list[str]:
    from ..recipe.fields import Recipe

    field = Recipe.model_fields.get(key)
    if field is None or not field.json_schema_extra:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return ["--set", f"{key}={text}"]
    name = option_name(key)
    if isinstance(value, bool):
        return [name if value else f"--no-{name[2:]}"]
    return [name, ",".join(map(str, value)) if isinstance(value, list) else str(value)]


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"
