"""`selfdistill compare`."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    clock,
    console,
    echo,
    echo_stderr,
    percent,
    scored,
    table,
)
from .options import RecipeFile, Settings, option_name, recipe_options

if TYPE_CHECKING:
    from ..comparison.compare import Comparison
    from ..comparison.grid import Study
    from ..comparison.results import RunOutcome

_COMPARE, _RUNS = "What to compare", "Runs"


def _option(panel: str, meaning: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=meaning, rich_help_panel=panel, **more)


# What belongs to a row stands in --methods.
@recipe_options(exclude=("method", "seed"))
def compare(
    *,
    methods: Annotated[
        list[str] | None,
        _option(
            _COMPARE,
            "Rows with commas between: METHOD, METHOD:key=value,… or NAME=METHOD:… "
            "(the recipe's method)",
            metavar="ROWS",
        ),
    ] = None,
    seeds: Annotated[str | None, _option(_COMPARE, "As 0-4, or 0,3,7. (0-4)")] = None,
    exit: Annotated[
        str | None,
        _option(_COMPARE, "The predictor to compare with the baseline's student. (student)"),
    ] = None,
    out: Annotated[
        Path | None, _option(_RUNS, "The study's directory. (studies/DATA-MODEL)")
    ] = None,
    resume: Annotated[
        Path | None, _option(_RUNS, "Go on with this study, as it was asked.", metavar="STUDY")
    ] = None,
    jobs: Annotated[
        str | None,
        _option(_RUNS, "Runs at a time. (auto: one a GPU, or one a core)", metavar="N|auto"),
    ] = None,
    threads: Annotated[
        int | None, _option(_RUNS, "Threads of each run. (the cores shared out)")
    ] = None,
    launcher: Annotated[str | None, _option(_RUNS, "local, or submitit for SLURM. (local)")] = None,
    slurm: Annotated[
        list[str] | None,
        _option(_RUNS, "submitit's options: partition=gpu,timeout_min=600.", metavar="KEY=VALUE,…"),
    ] = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    **keys: Any,
) -> None:
    """Train several methods with several seeds by one recipe, and compare them with a baseline."""
    own = {"methods": methods, "seeds": seeds, "exit": exit, "out": out, "resume": resume}
    own |= {"jobs": jobs, "threads": threads, "launcher": launcher, "slurm": slurm}
    own |= {"recipe": recipe, "settings": settings}
    given = {key: value for key, value in own.items() if value not in (None, [])} | keys
    from ..comparison.compare import compare as run
    from ..engine.signals import Interrupted

    screen = _Screen()
    try:
        found = run(**_arguments(given), watcher=screen)
    except Interrupted as stop:
        echo(f"\n{stop}, and all is saved; go on with\n  {_again(screen.path)}")
        raise SystemExit(128 + stop.number) from None
    _conclude(found)


_LAUNCH = {"exit", "jobs", "threads", "launcher", "slurm"}  # may differ when a study goes on
_OWN = {"methods", "seeds", "recipe", "out", "resume", *_LAUNCH}  # no keys of a recipe


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The options as `study.compare.compare` takes them."""
    from ..core import ConfigError

    given = dict(given)
    if others := [key for key in given if "resume" in given and key not in {"resume", *_LAUNCH}]:
        names = " and ".join(map(option_name, others))
        raise ConfigError(f"--resume goes on with the study as it is; leave out {names}")
    if "resume" in given:
        given |= {"out": given["resume"], "resume": True}
    if "jobs" in given:
        given["jobs"] = _jobs(given["jobs"])
    for pair in given.pop("settings", []):
        key, value = _pair(pair, "--set")
        if key in given:
            raise ConfigError(f"--set {key} and {option_name(key)} say the same; give one")
        if key in _OWN:
            raise ConfigError(f"--set is for what a recipe holds; '{key}' is given by --{key}")
        given[key] = value
    if "slurm" in given:
        pairs = [pair for text in given["slurm"] for pair in text.split(",")]
        given["slurm"] = dict(_pair(pair, "--slurm") for pair in pairs)
    return given


def _jobs(text: str) -> int | None:
    from ..core import ConfigError

    if text == "auto":
        return None
    if not text.removeprefix("-").isdecimal():
        raise ConfigError(f"--jobs is a number or auto, not '{text}'")
    return int(text)


def _pair(text: str, option: str) -> tuple[str, Any]:
    from ..core import ConfigError
    from ..recipe.schema import literal

    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals):
        raise ConfigError(f"{option} takes KEY=VALUE, not '{text}'")
    return key, literal(value)


class _Screen:
    """A line for each run that has ended."""

    path = Path()

    def begin(self, study: "Study", path: Path, done: int, how: str) -> None:
        """What is to be made."""
        self.path, self.began = path, time.monotonic()
        self.study, self.all, self.done = study, len(study.cells), done
        self.made = 0
        shared = study.shared
        if shared["task"] != "classification":
            echo(f"task     {shared['task']}")
        echo(f"network  {shared['model']}")
        echo(f"data     {shared['data']}")
        echo(f"epochs   {shared['epochs']}")
        echo(f"rows     {', '.join(study.rows)}")
        echo(f"seeds    {', '.join(map(str, study.seeds))}")
        if done == self.all:
            echo(f"runs     {self.all}, all of them there")
        else:
            there = f", {done} of them there" if done else ""
            echo(f"runs     {self.all}{there}; {how}\n")

    def ended(self, outcome: "RunOutcome", seconds: float) -> None:
        """The run, what came of it, and how long the rest may take."""
        self.done, self.made = self.done + 1, self.made + 1
        score = outcome.score("student", "test")
        score = outcome.score("student", "val") if score is None else score
        width = max(map(len, self.study.rows))
        said = outcome.failure and f"failed: {outcome.failure}"
        words = [
            f"{self.done:>{len(str(self.all))}} of {self.all}",
            f"{outcome.row:<{width}}  seed {outcome.seed}",
            said or f"{percent(score):>7}",
            clock(seconds),
        ]
        left = (time.monotonic() - self.began) / self.made * (self.all - self.done)
        words += [f"about {clock(left)} left"] if self.done < self.all else []
        echo("  ".join(words))

    def warn(self, sentence: str) -> None:
        """A warning of a run."""
        echo_stderr("warning", sentence)


def _conclude(found: "Comparison") -> None:
    """The table, what it says in words, the files, and what failed."""
    from ..comparison.results import sentence

    _show(found)
    baseline = found.study.baseline
    others = [result for result in found.summary if result.row != baseline]
    for result in others:
        echo(sentence(result, baseline))
    echo("\nWritten:" if others else "Written:")
    for name in ("study.html", "summary.csv", "results.csv", "study.toml", "runs/"):
        echo(f"  {found.path / name}{'/' * name.endswith('/')}")
    if failed := found.failed:
        echo(f"\n{len(failed)} of {len(found.outcomes)} runs failed. To try them again:")
        echo(f"  {_again(found.path)}")
        for outcome in failed:
            echo_stderr("error", f"{outcome.row} seed {outcome.seed} failed: {outcome.failure}")
        raise SystemExit(failed[0].code if failed[0].code > 0 else 7)


def _show(found: "Comparison") -> None:
    """A line for each row, also where nothing came of it."""
    from ..comparison.results import judged_split, points

    part, asked = judged_split(found.results), len(found.study.seeds)
    judged = scored(part, found.study.metric)
    made = table("row", ">seeds", f">{judged}", f">minus {found.study.baseline}")
    results = {result.row: result for result in found.summary}
    for row in found.study.rows:
        result = results.get(row)
        there = len(result.scores) if result else 0
        cells = [row, str(there) if there == asked else f"{there} of {asked}"]
        if result:
            spread = "" if result.std is None else f" ± {100 * result.std:.2f}"
            cells.append(f"{100 * result.mean:.2f}{spread} %")
            cells += [points(result.difference.mean)] if result.difference else []
        made.add_row(*cells)
    echo()
    console.print(made)
    echo()


def _again(path: Path) -> str:
    return f"selfdistill compare --resume {shlex.quote(str(path))}"
