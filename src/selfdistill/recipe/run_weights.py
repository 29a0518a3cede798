"""Weights of the student that a run left."""

from pathlib import Path

from torch import Tensor

from ..core import ConfigError
from ..engine import checkpoint
from ..engine.run_directory import RunDirectory
from ..engine.state import tensor_group
from .run_origin import checked_training_data, recipe_table
from .schema import Recipe, parse


def run_weights(path: Path) -> tuple[Recipe, dict[str, Tensor]]:
    """Recipe of a run, and the state of its student, by which it is evaluated.

    Raises:
        ConfigError: there is no run, it is not trained to its end, or its recipe was changed.
        ArtifactError: its checkpoints are corrupt, or data.json was changed.
    """
    run = RunDirectory(path)
    recipe = parse(recipe_table(run.recipe(), path), run_dir=path)
    saved = checkpoint.newest(run.checkpoints)
    if saved is None or not saved.state["finished"]:
        raise ConfigError(
            f"{path} is not trained to the end; `selfdistill train --resume {path}` does it"
        )
    checked_training_data(run, saved)
    state, prefix = tensor_group(saved, "model"), saved.state["student"]
    if "ema" in saved.tensors and prefix is not None:  # what the run was evaluated by
        average = saved.tensors["ema"]
        state = {n: average[prefix + n] for n in state if prefix + n in average}
    return recipe, dict(state)
