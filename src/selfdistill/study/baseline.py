"""The run without distillation that another is compared with, image by image."""

import shlex
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

from torch import Tensor

from ..core import METHODS, ConfigError, SelfdistillError
from ..recipe.schema import Recipe
from ..running import difference, recipe_of
from .grid import is_baseline
from .statistics import CONFIDENCE, Interval, Verdict

# What a matched baseline may have of its own: whom it learns from, its draws, and what is logged.
_OWN = {"method", "options", "taps", "teacher", "teacher_model", "teacher_taps", "peers", "seed"}
_OWN |= {"log_every", "save_every", "val_every"}
_IMAGES = ("data", "image_size")  # without these two alike, nothing can be compared


def matched_baseline(place: Path) -> Path | None:
    """A finished run beside this one that differs from it in the method alone, or None.

    Of several the one with the same seed, else with the lowest.
    """
    recipe, found = recipe_of(place), []
    for other in sorted(place.absolute().parent.iterdir()):
        if (other / "exits.csv").exists() and other != place.absolute():
            try:
                theirs = recipe_of(other)
            except SelfdistillError:  # of another version, or no run of ours
                continue
            if is_baseline(theirs.method) and not unlike(recipe, theirs):
                found.append((theirs.seed != recipe.seed, theirs.seed, other.name))
    return place.parent / min(found)[2] if found else None


def unlike(recipe: Recipe, baseline: Recipe) -> str:
    """The first key in which a baseline does not match, with both values, or ""."""
    return difference(recipe, baseline.model_copy(update={k: getattr(recipe, k) for k in _OWN}))


def check_comparable(place: Path, recipe: Recipe, baseline: Path) -> list[str]:
    """What speaks against a baseline without ruling it out, in sentences.

    Raises:
        ConfigError: it cannot be compared: it saw other images, or is not finished.
    """
    theirs = recipe_of(baseline)
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
    other = unlike(recipe, theirs)
    return [f"{baseline} is no matched baseline: it has another {other}"] if other else []


def how_to_make(place: Path) -> str:
    """The command that trains the baseline that a run lacks; "" if the run is one itself."""
    if is_baseline(recipe_of(place).method):
        return ""
    name = next(name for name in METHODS if METHODS[name].kind == "baseline")
    out = place.with_name(f"{place.name}-{name}")
    words = ["selfdistill", "train", "--recipe", place / "recipe.toml", "--method", name]
    return shlex.join(map(str, [*words, "--out", out]))


class Paired(NamedTuple):
    """What two networks say of the same images.

    Attributes:
        mean: difference of the accuracies, ours minus theirs.
        interval: of 95 % for it.
        verdict: whether the interval holds zero.
    """

    mean: float
    interval: Interval
    verdict: Verdict


def paired_images(ours: Tensor, theirs: Tensor) -> Paired:
    """Compare image by image; only those tell that one of the two gets right and the other wrong.

    The interval is that of Bonett and Price 2012 (Journal of Educational and Behavioral Statistics
    37, 479): the normal one, with one image added to either side, without which few images would
    seem to prove too much. It holds zero where McNemar's exact test finds no difference, but for a
    rare image on the border.

    Args:
        ours, theirs: whether each image is answered right, (N,) bool, in the same order.
    """
    won, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    images = len(ours)
    middle = (won - lost) / (images + 2)
    variance = ((won + lost + 2) / (images + 2) - middle**2) / (images + 2)
    reach = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * variance**0.5
    interval = Interval(middle - reach, middle + reach)
    verdict = Verdict.WITHIN if interval.holds(0) else Verdict.BEYOND
    return Paired((won - lost) / images, interval, verdict)
