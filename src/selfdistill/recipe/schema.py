"""Recipes read, checked and written: all settings of a run, flat and complete, as TOML."""

import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import ValidationError

from ..core import ConfigError, nearest, shortened
from ..tasks import TASKS
from .fields import Recipe
from .options import (
    check_companions,
    check_options,
    check_plain_values,
    first_error,
)
from .plugins import import_plugins

__all__ = ["Recipe", "literal", "parse", "read", "type_name", "write"]

_MODELS = {"segmentation": "fpn/small", "detection": "yolov5/n"}
"""The network where none is named, by task."""
_MAX_BYTES = 1 << 20
_MAX_DOTS = 1000  # tomllib takes quadratic time and memory for a dotted key


def parse(values: Mapping[str, Any], *, run_dir: Path | None = None) -> Recipe:
    """A checked and complete recipe; the method's defaults are filled in.

    Modules that the recipe names are imported first.

    Args:
        values: the keys of a recipe.
        run_dir: the run that the recipe was read from.

    Raises:
        ConfigError: an unknown key, task, method or option, or a value that does not fit.
    """
    for key in values:
        if key not in Recipe.model_fields:
            name = shortened(str(key))
            raise ConfigError(f"a recipe has no key '{name}'{nearest(name, Recipe.model_fields)}")
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(first_error(error)) from None
    check_plain_values(recipe.model_dump())
    if "model" not in values and recipe.task in _MODELS:
        recipe = recipe.model_copy(update={"model": _MODELS[recipe.task]})
    import_plugins(recipe.imports, run_dir=run_dir)
    if recipe.task not in TASKS:
        raise ConfigError(f"there is no task '{recipe.task}'{nearest(recipe.task, TASKS)}")
    check_companions(recipe.method, bool(recipe.teacher), bool(recipe.peers))
    chosen = check_options(recipe.method, recipe.options)
    return recipe.model_copy(update={"options": chosen})


def read(path: Path) -> dict[str, Any]:
    """A recipe file as a dictionary, not yet checked.

    Raises:
        ConfigError: no such file, one that is far too large, or not TOML.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"the recipe {path} is larger than 1 MB, which no recipe is")
        return read_toml(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"the recipe {path} is not TOML: {error}") from None


def read_toml(content: bytes) -> dict[str, Any]:
    """A TOML document in UTF-8, with a byte order mark or without.

    Raises:
        ValueError: it is none, its message being the reason, or it is nested too deeply.
    """
    text = content.decode("utf-8-sig")
    if max((line.count(".") for line in text.splitlines()), default=0) > _MAX_DOTS:
        raise ValueError("a line has more dots than any key or number of a recipe")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


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
