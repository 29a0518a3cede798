"""A run that goes on: by its own recipe, or to more epochs than it was to have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..core import ConfigError, Method
from ..engine.run_directory import RunDirectory
from ..recipe.merge import merge_keys
from ..recipe.schema import Recipe, parse


def extended(recipe: Recipe, epochs: int | None, run_dir: str | Path | None) -> Recipe:
    """A run's recipe with more epochs; None leaves it as it is.

    Raises:
        ConfigError: these are fewer than the run has.
    """
    if epochs is None:
        return recipe
    if isinstance(epochs, int) and epochs < recipe.epochs:
        raise ConfigError(
            f"{run_dir} is a run of {recipe.epochs} epochs, and --epochs {epochs} would cut it "
            "short; to extend it, give more than it has"
        )
    return parse(recipe.model_dump() | {"epochs": epochs})


def check_extension(recipe: Recipe, before: int, method: Method) -> None:
    """Raise `ConfigError` if the method divides the epochs that it was to have in cycles."""
    if recipe.epochs > before and method.cycles > 1:
        raise ConfigError(
            f"{recipe.method} divides its {before} epochs in {method.cycles} cycles, which more "
            f"epochs would divide anew; start a new run of {recipe.epochs} epochs"
        )


def describe_extension(recipe: Recipe, before: int) -> str:
    """What more epochs do to the schedule, a sentence."""
    text = f"the run is extended from {before} to {recipe.epochs} epochs"
    if recipe.lr_schedule == "cosine":
        return (
            f"{text}: from here on the learning rate is that of a cosine over {recipe.epochs} "
            "epochs, higher than where the shorter one ended"
        )
    return f"{text}: its {recipe.lr_schedule} schedule of the learning rate goes on as it was"


def machine_difference(directory: RunDirectory) -> str:
    """That a resume is not exact, since other threads add in another order, a sentence, or ""."""
    began, now = directory.environment().get("threads"), torch.get_num_threads()
    if began in (None, now):
        return ""
    return (
        f"this run began with {began} CPU threads and goes on with {now}: the end is not the same "
        "bit for bit"
    )


def check_same_keys(recipe: Recipe, given: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if keys are given that are not those of the run that goes on.

    Only `epochs` may differ.
    """
    own = recipe.model_dump()
    asked = parse(merge_keys(own, given)).model_dump()
    for key, value in asked.items():
        if key != "epochs" and value != own[key]:
            raise ConfigError(
                f"a resume goes on by the run's own recipe, whose {key} is {own[key]!r}; leave out "
                f"{key}, or start a new run in another directory"
            )
