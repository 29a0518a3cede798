"""Data that networks are scored by: a run's own, or others that were not trained on."""

from dataclasses import replace
from pathlib import Path

from ..data import ImageData
from ..data.parts import held_out_alone
from ..recipe.build_run import load_data
from ..recipe.schema import Recipe


def load_to_score(recipe: Recipe, name: str | None, size: tuple[int, int]) -> ImageData:
    """Data in the size of a network's images, read as a run's recipe says.

    Of the run's own a part is held out, as in training. Of others nothing was trained on: they may
    have a test or validation part alone, and without any all of their images are scored.

    Args:
        recipe: of the run.
        name: of the data; None for the run's own.
        size: height and width.
    """
    if name is None or _place(name) == _place(recipe.data):
        return load_data(recipe, size)
    whole = {"data": name, "val_fraction": 0.0, "max_train_images": None}
    with held_out_alone():
        return all_to_score(load_data(recipe.model_copy(update=whole), size))


def all_to_score(data: ImageData) -> ImageData:
    """Other data, of which all images are for either part if none are held out."""
    return data if data.test or data.val else replace(data, val=data.train, test=data.train)


def _place(name: str) -> tuple[str, str]:
    kind, _, path = name.partition(":")
    return kind, str(Path(path).expanduser().resolve()) if path else ""
