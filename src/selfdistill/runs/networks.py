"""Networks to be measured, by the names that a user gives."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..core import ConfigError, DataError
from ..core.keyed_random import bits, purpose
from ..data import ImageData
from ..information.config import NetworkUnderTest
from ..models import build
from ..models.build import name_hint
from ..modules.composite import student_taps
from ..modules.exits import Exits
from ..recipe.build_run import data_key, load_data, load_run_data
from ..recipe.network_input import as_network_input, initial_weights
from ..recipe.schema import Recipe, parse
from .paths import load_recipe
from .run import load

# As in a run, so that a seed gives the network that a run begins with.
_WEIGHTS = purpose("weights")


def networks_under_test(
    names: Sequence[str],
    *,
    data: str | None = None,
    taps: str | None = None,
    weights: str = "",
    image_size: int | None = None,
    seed: int = 0,
    at_bottlenecks: bool = False,
) -> tuple[dict[str, NetworkUnderTest], ImageData]:
    """Runs, as they are trained, and networks, as they are made, and the data for all of them.

    Args:
        names: directories of runs, and networks by name.
        data: a data set's name, ``folder:PATH`` or ``npz:PATH``; None is the first run's, and
            without a run the handwritten digits.
        taps: names with commas, or ``auto``; None is each run's own, and ``auto`` for a network.
        weights: of the networks that are given by name, see `models.build`.
        image_size: side of the images in pixels; None is the runs'.
        seed: of weights that are drawn.
        at_bottlenecks: the modules of runs with exits end behind the exits' bottlenecks.

    Raises:
        ConfigError: a name is nothing, or is given twice, or has no bottlenecks to measure at; or
            bottlenecks are asked for at other taps.
        DataError: the networks do not take images of one size.
    """
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"'{twice[0]}' is named twice")
    if at_bottlenecks and taps:
        raise ConfigError(
            "bottlenecks hang on the taps that a run was trained with; leave out --taps or "
            "--at-bottlenecks"
        )
    recipes = {name: load_recipe(name) for name in names if _is_run(name)}
    own = _Own()
    images = _images(list(recipes.values()), data, image_size, own)
    networks: dict[str, NetworkUnderTest] = {}
    for name, short in zip(names, shortened(names, recipes), strict=True):
        if name in recipes:
            recipe = recipes[name]
            _check(name, own.of(recipe), images)
            networks[short] = _trained(name, recipe, own.of(recipe), taps, at_bottlenecks)
            if data is None and own.differs(recipe, next(iter(recipes.values()))):
                warnings.warn(
                    f"{name} was trained on other images than {next(iter(recipes))}, maybe on "
                    "some that are held out here",
                    stacklevel=2,
                )
        elif at_bottlenecks:
            raise _no_bottlenecks(name, "is no run")
        else:
            networks[short] = _built(name, images, taps, weights, seed)
    return networks, images


class _Own:
    """The data of runs, loaded once where several share them."""

    def __init__(self) -> None:
        self.known: dict[tuple[object, ...], ImageData] = {}

    def of(self, recipe: Recipe) -> ImageData:
        """A run's own data."""
        key = data_key(recipe)
        if key not in self.known:
            self.known[key] = load_run_data(recipe)
        return self.known[key]

    def differs(self, one: Recipe, other: Recipe) -> bool:
        """Whether the two hold out different images."""
        return (one.data, one.val_fraction) != (other.data, other.val_fraction)


def _is_run(name: str) -> bool:
    """Whether it is the directory of a run, or else a network.

    Raises:
        ConfigError: it is neither.
    """
    if Path(name).is_dir():
        return True
    if name.partition("/")[0] not in ("cifar", "timm", "torchvision"):
        raise ConfigError(f"there is no run and no network '{name}'{name_hint(name)}")
    return False


def _images(
    recipes: Sequence[Recipe], data: str | None, image_size: int | None, own: _Own
) -> ImageData:
    """The data that all networks are shown; of the size that the first run was trained with."""
    if not recipes:
        return load_data(parse({"image_size": image_size} | ({"data": data} if data else {})))
    first = recipes[0]
    if data is None and image_size is None:
        return own.of(first)
    height, width = own.of(first).train.shape[-2:]
    size = (image_size, image_size) if image_size else (height, width)
    return load_data(first.model_copy(update={"data": data or first.data}), size)


def _check(name: str, own: ImageData, images: ImageData) -> None:
    if own.train.shape != images.train.shape:
        own_size, size = (" × ".join(map(str, d.train.shape)) for d in (own, images))
        raise DataError(
            f"{name} was trained on images of {own_size} and these are {size}; measure it by "
            "itself, or give --data of its kind"
        )


def _trained(
    name: str, recipe: Recipe, own: ImageData, taps: str | None, at_bottlenecks: bool
) -> NetworkUnderTest:
    run = load(name, data=own)
    if run.unfinished:
        warnings.warn(f"{name} is not finished: {run.unfinished}", stacklevel=2)
    taps = taps or student_taps(run.method, recipe.taps)
    network = NetworkUnderTest(run.network, taps, run.data.mean, run.data.std)
    if not at_bottlenecks:
        return network
    exits = next((m for m in run.method.modules() if isinstance(m, Exits)), None)
    if exits is None:
        raise _no_bottlenecks(name, f"was trained by {recipe.method}, which makes no exits")
    return replace(network, bottlenecks=list(exits.bottlenecks))


def _no_bottlenecks(name: str, why: str) -> ConfigError:
    return ConfigError(f"{name} {why} and so has no bottlenecks; leave --at-bottlenecks out")


def _built(
    name: str, images: ImageData, taps: str | None, weights: str, seed: int
) -> NetworkUnderTest:
    recipe = Recipe(model=name, weights=weights, task=images.task)
    shown = as_network_input(recipe, images, weights=initial_weights(recipe))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(bits(_WEIGHTS, seed)))
        network = build(
            name,
            num_classes=len(images.classes),
            in_channels=shown.train.shape[0],
            weights=weights,
        )
    return NetworkUnderTest(network, taps or "auto", shown.mean, shown.std)


def shortened(names: Sequence[str], runs: Sequence[str] | dict[str, Recipe]) -> list[str]:
    """Names as short as tells runs apart: of runs/a/ce/s0 and runs/a/muse/s0 `ce` and `muse`."""
    parts = {name: list(Path(name).parts) for name in names if name in runs}
    if len(parts) < 2:
        return list(names)
    while len({tuple(p[:1]) for p in parts.values()}) == 1 and min(map(len, parts.values())) > 1:
        parts = {name: p[1:] for name, p in parts.items()}
    while len({tuple(p[-1:]) for p in parts.values()}) == 1 and min(map(len, parts.values())) > 1:
        parts = {name: p[:-1] for name, p in parts.items()}
    return ["/".join(parts[name]) if name in parts else name for name in names]
