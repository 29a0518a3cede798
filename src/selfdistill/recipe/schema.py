"""Recipes read, checked and written: all settings of a run, flat and complete, as TOML."""

import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w

from ..core import ConfigError, nearest
from ..tasks import TASKS
from .document import read, read_toml, typed_recipe
from .fields import Recipe
from .options import check_companions, check_options, check_pool, task_of
from .plugins import import_plugins

__all__ = ["Recipe", "literal", "parse", "read", "read_toml", "type_name", "write"]

_MODELS = {"segmentation": "fpn/small", "detection": "yolov5/n"}
"""The network where none is named, by task."""


def parse(values: Mapping[str, Any], *, run_dir: Path | None = None) -> Recipe:
    """A checked and complete recipe; the method's defaults are filled in.

    Modules that the recipe names are imported first.

    Args:
        values: the keys of a recipe.
        run_dir: the run that the recipe was read from.

    Raises:
        ConfigError: an unknown key, task, method or option, or a value that does not fit.
    """
    recipe = typed_recipe(values)
    if "model" not in values and recipe.task in _MODELS:
        recipe = recipe.model_copy(update={"model": _MODELS[recipe.task]})
    import_plugins(recipe.imports, run_dir=run_dir)
    task = task_of(recipe.method, recipe.task if "task" in values else "")
    recipe = recipe.model_copy(update={"task": task})
    if recipe.task not in TASKS:
        raise ConfigError(f"there is no task '{recipe.task}'{nearest(recipe.task, TASKS)}")
    check_companions(recipe.method, bool(recipe.teacher), bool(recipe.peers), bool(recipe.extra))
    check_pool(recipe.method, recipe.extra)
    chosen = check_options(recipe.method, recipe.options)
    return recipe.model_copy(update={"options": chosen})


def write(recipe: Recipe) -> str:
    """The recipe as TOML; what is none is left out, since TOML has no word for it."""
    flat = recipe.model_dump(exclude={"options"}, exclude_none=True)
    return tomli_w.dumps({**flat, "options": _without_none(recipe.options)})


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def literal(text: str) -> Any:
    """The value that a person means by `text`: a TOML value, none, or else the text itself."""
    if text.lower() == "none":
        return None
    try:
        value = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # also numbers of too many digits
        return {"True": True, "False": False}.get(text, text)
    plain = len(value) == 1 and isinstance(value["value"], (bool, int, float, str, list))
    return value["value"] if plain else text


def type_name(annotation: Any) -> str:
    """An annotation as a user would write it: `add | mul`, `float`, `int | none`."""
    if typing.get_origin(annotation) is Literal:
        return " | ".join(str(choice) for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " | ".join(type_name(part) for part in typing.get_args(annotation))
    if annotation is type(None):
        return "none"
    return getattr(annotation, "__name__", str(annotation))
