"""The run without distillation that another is compared with, image by image."""

import shlex
from pathlib import Path

from ..core import METHODS, ConfigError, SelfdistillError
from ..recipe.options import is_baseline
from ..recipe.schema import Recipe
from .training import first_difference, load_recipe

# What a matched baseline may have of its own: whom it learns from, its draws, and what is logged.
_OWN = {"method", "options", "taps", "teacher", "teacher_model", "teacher_taps", "peers", "seed"}
_OWN |= {"log_every_steps", "save_every_steps", "val_every_epochs"}
_IMAGES = ("data", "image_size")  # without these two alike, nothing can be compared


def matched_baseline(place: Path) -> Path | None:
    """A finished run beside this one that differs from it in the method alone, or None.

    Of several the one with the same seed, else with the lowest.
    """
    recipe, found = load_recipe(place), []
    for other in sorted(place.absolute().parent.iterdir()):
        if (other / "exits.csv").exists() and other != place.absolute():
            try:
                theirs = load_recipe(other)
            except SelfdistillError:  # of another version, or no run of ours
                continue
            if is_baseline(theirs.method) and not first_mismatch(recipe, theirs):
                found.append((theirs.seed != recipe.seed, theirs.seed, other.name))
    return place.parent / min(found)[2] if found else None


def first_mismatch(recipe: Recipe, baseline: Recipe) -> str:
    """The first key in which a baseline does not match, with both values, or ""."""
    return first_difference(
        recipe, baseline.model_copy(update={k: getattr(recipe, k) for k in _OWN})
    )


def check_comparable(place: Path, recipe: Recipe, baseline: Path) -> list[str]:
    """What speaks against a baseline without ruling it out, in sentences.

    Raises:
        ConfigError: it cannot be compared: it saw other images, or is not finished.
    """
    theirs = load_recipe(baseline)
    for key in _IMAGES:
        if getattr(theirs, key) != getattr(recipe, key):
            raise ConfigError(
                f"{baseline} cannot be compared with {place}: its {key} is "
                f"{getattr(theirs, key)!r}, not {getattr(recipe, key)!r}"
            )
    if not (baseline / "exits.csv").exists():
        raise ConfigError(
            f"the baseline {baseline} is not finished; "
            f"selfdistill train --resume {baseline} finishes it"
        )
    other = first_mismatch(recipe, theirs)
    return [f"{baseline} is no matched baseline: it has another {other}"] if other else []


def baseline_command(place: Path) -> str:
    """The command that trains the baseline that a run lacks; "" if the run is one itself."""
    if is_baseline(load_recipe(place).method):
        return ""
    name = next(name for name in METHODS if METHODS[name].kind == "baseline")
    out = place.with_name(f"{place.name}-{name}")
    words = ["selfdistill", "train", "--recipe", place / "recipe.toml", "--method", name]
    return shlex.join(map(str, [*words, "--out", out]))
