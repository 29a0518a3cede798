"""Weights of the student that a run left."""

import tomllib
from pathlib import Path

from torch import Tensor

from ..core import ConfigError
from ..engine import checkpoint
from ..engine.run_directory import RunDirectory
from .schema import Recipe, parse


def run_weights(path: Path) -> tuple[Recipe, dict[str, Tensor]]:
    """Recipe of a run, and the state of its student, by which it is evaluated.

    Raises:
        ConfigError: there is no run, or it is not trained to its end.
        ArtifactError: its checkpoints are corrupt.
    """
    run = RunDirectory(path)
    recipe = parse(tomllib.loads(run.recipe()), run_dir=path)
    saved = checkpoint.newest(run.checkpoints)
    if saved is None or not saved.state["finished"]:
        raise ConfigError(
            f"{path} is not trained to the end; `selfdistill train --resume {path}` does it"
        )
    state, prefix = saved.tensors["model"], saved.state.get("student")
    if "ema" in saved.tensors and prefix is not None:
        state = {name: saved.tensors["ema"][prefix + name] for name in state}
    return recipe, dict(state)
