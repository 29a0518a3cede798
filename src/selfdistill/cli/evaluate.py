"""`selfdistill evaluate`: judge a run again, on its own data or on other."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .screen import line, show_exits

if TYPE_CHECKING:
    from ..data import ImageData
    from ..data.images import ImageSet
    from ..recipe.schema import Recipe


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of the run.")],
    data: Annotated[
        str | None, typer.Option(help="Other data with the same classes.", show_default="the run's")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="[val|test]", help="Which part.", show_default="test if there is one"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="the run's")
    ] = None,
) -> None:
    """Judge every exit of a run by its newest checkpoint."""
    from ..api import load, recipe_of
    from ..recipe.build import load_data, make_fabric
    from ..recipe.schema import parse

    here = {"devices": 1, "nodes": 1} | ({"device": device} if device else {})
    recipe = parse(recipe_of(run).model_dump() | here)
    fabric = make_fabric(recipe)
    own = load_data(recipe)
    trained = load(run, data=own)
    judged = _other(recipe, data, own) if data else own
    part, images = _part(judged, split)
    line(f"{run} · {recipe.method} · {recipe.model}")
    line(f"{judged.name} · {part} · {len(images)} images\n")
    show_exits(_judge(recipe, fabric, trained.method, judged, part, images))


def _other(recipe: "Recipe", name: str, own: "ImageData") -> "ImageData":
    """Other data, brought to the size and the normalization that the run was trained with."""
    from dataclasses import replace

    from ..core import DataError
    from ..recipe.build import load_data

    channels, height, width = own.train.shape
    size = height if height == width else recipe.image_size
    other = load_data(recipe.model_copy(update={"data": name, "image_size": size}))
    if len(other.classes) != len(own.classes):
        raise DataError(
            f"'{name}' has {len(other.classes)} classes and the run was trained on "
            f"{len(own.classes)}; give data with the same classes"
        )
    if other.train.shape[0] != channels:
        raise DataError(
            f"the images of '{name}' have {other.train.shape[0]} channels and the run was trained "
            f"on {channels}; convert them"
        )
    return replace(other, mean=own.mean, std=own.std)


def _part(data: "ImageData", split: str | None) -> "tuple[str, ImageSet]":
    from ..core import ConfigError, DataError

    parts = {"test": data.test, "val": data.val}
    if split not in (None, *parts):
        raise ConfigError(f"--split is val or test, not '{split}'")
    wanted = [split] if split else list(parts)
    for name in wanted:
        if (images := parts[name]) is not None:
            return name, images
    raise DataError(f"'{data.name}' has no {' and no '.join(wanted)} part")


def _judge(
    recipe: "Recipe", fabric: Any, method: Any, data: "ImageData", part: str, images: "ImageSet"
) -> Any:

    from ..engine.evaluate import evaluate as judge
    from ..export.exits import exit_rows
    from ..recipe.build import eval_loader
    from ..tasks import make_task

    task = make_task(data.task, data.classes, images.shape)
    method.to(fabric.device)
    scores = judge(fabric, method, task, eval_loader(recipe, data, images, fabric))
    val, test = (scores if part == name else None for name in ("val", "test"))
    return exit_rows(method, task.example, task.primary_metric, val, test)
