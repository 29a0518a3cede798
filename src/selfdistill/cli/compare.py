"""`selfdistill compare`: options and arguments."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import RecipeFile, Settings, option_name, recipe_options

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
    own: dict[str, Any] = {
        "methods": methods,
        "seeds": seeds,
        "exit": exit,
        "out": out,
        "resume": resume,
    }
    own |= {"jobs": jobs, "threads": threads, "launcher": launcher, "slurm": slurm}
    own |= {"recipe": recipe, "settings": settings}
    given = {key: value for key, value in own.items() if value not in (None, [])} | keys
    from ..comparison.compare import compare as run_comparison
    from ..signals import Interrupted
    from .compare_output import ComparisonScreen, resume_command, show_comparison, show_failures
    from .console import echo

    screen = ComparisonScreen()
    try:
        comparison = run_comparison(**comparison_arguments(given), callback=screen)
    except Interrupted as stop:
        echo(f"\n{stop}, and all is saved; go on with\n  {resume_command(screen.path)}")
        raise SystemExit(128 + stop.number) from None
    show_comparison(comparison)
    show_failures(comparison)


_LAUNCH = {"exit", "jobs", "threads", "launcher", "slurm"}  # may differ when a study is resumed
_STUDY_OPTIONS = {"methods", "seeds", "recipe", "out", "resume", *_LAUNCH}  # not keys of a recipe


def comparison_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `comparison.compare.compare` from the options."""
    from ..core import ConfigError

    given = dict(given)
    if extra := [key for key in given if "resume" in given and key not in {"resume", *_LAUNCH}]:
        names = " and ".join(map(option_name, extra))
        raise ConfigError(f"--resume continues the study as it is; leave out {names}")
    if "resume" in given:
        given |= {"out": given["resume"], "resume": True}
    if "jobs" in given:
        given["jobs"] = _parse_jobs(given["jobs"])
    for text in given.pop("settings", []):
        key, value = _parse_pair(text, "--set")
        if key in given:
            raise ConfigError(f"--set {key} and {option_name(key)} say the same; give one")
        if key in _STUDY_OPTIONS:
            raise ConfigError(f"--set is for what a recipe holds; '{key}' is given by --{key}")
        given[key] = value
    if "slurm" in given:
        pairs = [pair for text in given["slurm"] for pair in text.split(",")]
        given["slurm"] = dict(_parse_pair(pair, "--slurm") for pair in pairs)
    return given


def _parse_jobs(text: str) -> int | None:
    """Number of jobs, None for `auto`."""
    from ..core import ConfigError, shortened

    if text == "auto":
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 10:
        raise ConfigError(f"--jobs is a number or auto, not '{shortened(text)}'")
    return int(text)


def _parse_pair(text: str, option: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`."""
    from ..core import ConfigError
    from ..recipe.schema import literal

    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals):
        raise ConfigError(f"{option} takes KEY=VALUE, not '{text}'")
    return key, literal(value)
