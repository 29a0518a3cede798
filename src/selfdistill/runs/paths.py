"""Where runs lie, and which run a directory holds."""

from pathlib import Path

from ..core import ConfigError, ResourceError, RunBusyError
from ..engine import checkpoint
from ..engine.run_directory import RunDirectory
from ..recipe.machine_choices import UNDECIDED
from ..recipe.run_origin import MACHINE_KEYS, recipe_table
from ..recipe.schema import Recipe, parse
from ..records.exit_scores import FILE as EXITS_FILE

_NAMED_ONLY = MACHINE_KEYS | {"preset"}  # what a preset set stands beside it


def load_recipe(path: str | Path | None) -> Recipe:
    """The recipe of a run that exists.

    Raises:
        ConfigError: no directory is named, it holds no run, or its recipe does not fit.
    """
    if path is None:
        raise ConfigError("which run is to be resumed? name its directory")
    table = recipe_table(RunDirectory(Path(path)).recipe(), Path(path))
    return parse(table, run_dir=Path(path))


def first_difference(recipe: Recipe, other: Recipe) -> str:
    """The first key in which two recipes ask for different runs, or "".

    What the first one leaves to the machine does not count.
    """
    for key, value in recipe.model_dump().items():
        undecided = key in UNDECIDED and value == UNDECIDED[key]
        if key not in _NAMED_ONLY and not undecided and value != getattr(other, key):
            return f"{key} ({getattr(other, key)!r}, not {value!r})"
    return ""


def unique_run_dir(recipe: Recipe) -> Path:
    """runs/DATA-MODEL-METHOD-sSEED, with a number behind it if that is taken."""
    parts = (recipe.data, recipe.model.split("/")[-1], recipe.method, f"s{recipe.seed}")
    name = "-".join(Path(part.split(":")[-1]).stem for part in parts)
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path


def check_finished(path: Path) -> None:
    """Raise unless there is a run, trained to its end, that no process trains.

    Raises:
        ConfigError: there is no run, or it was stopped before its end.
        RunBusyError: it is being trained now.
        ArtifactError: its checkpoints are corrupt or of a newer version.
    """
    directory = RunDirectory(path)
    directory.recipe()
    try:
        with directory.held():
            newest = checkpoint.newest(directory.checkpoints)
    except RunBusyError:
        raise RunBusyError(f"{path} is being trained now; export it when it has ended") from None
    except ResourceError:  # no process trains in a folder that cannot be written
        newest = checkpoint.newest(directory.checkpoints)
    if newest is None or not newest.state["finished"] or not (path / EXITS_FILE).exists():
        raise ConfigError(
            f"{path} is not trained to the end; `selfdistill train --resume {path}` goes on with it"
        )
