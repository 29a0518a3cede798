"""The run without distillation that another is compared with, image by image."""

import shlex
from pathlib import Path

from ..core import METHODS, ConfigError, SelfdistillError
from ..recipe.document import METHOD_KEYS
from ..recipe.options import is_baseline
from ..recipe.schema import Recipe
from ..tasks import TASKS
from .paths import first_difference, load_recipe

# What a matched baseline may have of its own: whom it learns from, its draws, and what is logged.
_MAY_DIFFER = {
    *METHOD_KEYS,
    "method",
    "taps",
    "seed",
    "preset",  # what it set stands beside it
    "channels_last",  # the same numbers but for rounding
}
_MAY_DIFFER |= {"log_every_steps", "save_every_steps", "val_every_epochs"}
_IMAGES = ("data", "image_size")  # without these two alike, nothing can be compared


def matched_baseline(run_dir: Path) -> Path | None:
    """A finished run beside this one that differs from it in the method alone, or None.

    Of several the one with the same seed, else with the lowest.
    """
    recipe, matches = load_recipe(run_dir), []
    for other in sorted(run_dir.absolute().parent.iterdir()):
        if (other / "exits.csv").exists() and other != run_dir.absolute():
            try:
                baseline = load_recipe(other)
            except SelfdistillError:  # of another version, or no run of ours
                continue
            if is_baseline(baseline.method) and not first_mismatch(recipe, baseline):
                matches.append((baseline.seed != recipe.seed, baseline.seed, other.name))
    return run_dir.parent / min(matches)[2] if matches else None


def first_mismatch(recipe: Recipe, baseline: Recipe) -> str:
    """The first key in which a baseline does not match, with both values, or ""."""
    return first_difference(
        recipe, baseline.model_copy(update={k: getattr(recipe, k) for k in _MAY_DIFFER})
    )


def check_comparable(run_dir: Path, recipe: Recipe, baseline: Path) -> list[str]:
    """What speaks against a baseline without ruling it out, in sentences.

    Raises:
        ConfigError: it cannot be compared: it saw other images, or is not finished.
    """
    other = load_recipe(baseline)
    for key in _IMAGES:
        if getattr(other, key) != getattr(recipe, key):
            raise ConfigError(
                f"{baseline} cannot be compared with {run_dir}: its {key} is "
                f"{getattr(other, key)!r}, not {getattr(recipe, key)!r}"
            )
    if not (baseline / "exits.csv").exists():
        raise ConfigError(
            f"the baseline {baseline} is not finished; "
            f"selfdistill train --resume {baseline} finishes it"
        )
    key = first_mismatch(recipe, other)
    return [f"{baseline} is no matched baseline: it has another {key}"] if key else []


def baseline_command(run_dir: Path) -> str:
    """The command that trains the baseline that a run lacks; "" if it is one, or can have none."""
    recipe = load_recipe(run_dir)
    if is_baseline(recipe.method) or TASKS[recipe.task].embeddings:
        return ""
    name = next(name for name in METHODS if METHODS[name].kind == "baseline")
    out = run_dir.with_name(f"{run_dir.name}-{name}")
    command = ["selfdistill", "train", "--recipe", run_dir / "recipe.toml", "--method", name]
    return shlex.join(map(str, [*command, "--out", out]))
