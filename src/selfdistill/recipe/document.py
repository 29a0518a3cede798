"""Recipes as documents: read, checked for keys and types, and for what is refused without torch.

Imports no torch, so that a mistyped name is answered at once.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pydantic import ValidationError

from ..engine.optimizer_names import check_optimizer_name
from ..errors import ConfigError, DataError, nearest, shortened
from .default_method import default_method
from .fields import Recipe
from .plugins import GROUP

_MAX_BYTES = 1 << 20
_MAX_DOTS = 1000  # tomllib takes quadratic time and memory for a dotted key
_MAX_INTEGER = 2**53
_METHODS = Path(__file__).parents[1] / "methods"
COMPANION_KEYS = {
    "offline": ("teacher", "teacher_model", "teacher_taps", "teacher_image_size"),
    "online": ("peers",),
}
"""Keys of a recipe that are for methods of a kind."""
METHOD_KEYS = ("options", "extra", *COMPANION_KEYS["offline"], *COMPANION_KEYS["online"])
"""Keys of a recipe that belong to its method, so that another one may have no use for them."""
LABEL_TASKS = ("classification", "clips", "embedding")
"""Tasks whose images have neither boxes nor masks."""
PUBLISHED = ("timm", "torchvision")
"""Families of networks whose weights can be downloaded."""


def read(path: Path) -> dict[str, Any]:
    """A recipe file as a dictionary, not yet checked.

    Raises:
        ConfigError: no such file, one that is far too large, or not TOML.
    """
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_BYTES:
            return read_toml(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"the recipe {path} is not TOML: {error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"the recipe {path} is a folder; give a TOML file")
    if stat.S_ISREG(status.st_mode):
        raise ConfigError(f"the recipe {path} is larger than 1 MB, which no recipe is")
    # a pipe or a device would be read for ever
    raise ConfigError(f"the recipe {path} is no regular file; give a TOML file")


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


def typed_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe whose keys and types are checked; method, options and names are not.

    Raises:
        ConfigError: an unknown key, or a value of a wrong type or out of its bounds.
    """
    for key in values:
        if key not in Recipe.model_fields:
            name = shortened(str(key))
            raise ConfigError(f"a recipe has no key '{name}'{nearest(name, Recipe.model_fields)}")
    try:
        recipe = Recipe.model_validate({key: _plain(value) for key, value in values.items()})
    except ValidationError as error:
        raise ConfigError(first_error(error)) from None
    check_plain_values(recipe.model_dump())
    _check_normalization(recipe)
    _check_cache(recipe)
    _check_shards(recipe)
    _check_windows(recipe)
    check_optimizer_name(recipe.optimizer)
    if recipe.method:
        return recipe
    return recipe.model_copy(update={"method": default_method(recipe.model_dump()).method})


def _plain(value: Any) -> Any:
    """A path as text, by itself or in a list."""
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _check_normalization(recipe: Recipe) -> None:
    """Raises `ConfigError` if mean and std are not of the same channels, or of other pixels."""
    given = {"mean": recipe.mean, "std": recipe.std}
    if lacking := [key for key, numbers in given.items() if not numbers]:
        if len(lacking) == 1:
            (other,) = given.keys() - lacking
            raise ConfigError(f"{other} is given and {lacking[0]} is not; give both, or none")
    elif len(recipe.mean) != len(recipe.std) and 1 not in (len(recipe.mean), len(recipe.std)):
        raise ConfigError(
            f"mean has {len(recipe.mean)} numbers and std has {len(recipe.std)}; give one a "
            "channel, or one for all"
        )
    for key, numbers in given.items():
        if large := next((number for number in numbers if number > 1), None):
            raise ConfigError(
                f"{key} = {large:g} is not of pixels in 0 … 1; if it is of 0 … 255, divide mean "
                "and std by 255"
            )


def _check_cache(recipe: Recipe) -> None:
    """Raises `ConfigError` if it is said how to keep a teacher's outputs and not that."""
    given = [key for key in Recipe.model_fields if key.startswith("cache_")]
    given = [key for key in given if getattr(recipe, key) != Recipe.model_fields[key].default]
    if given and not recipe.cache_views:
        raise ConfigError(
            f"{given[0]} is about a teacher's outputs that are kept, and none are; give "
            "cache_views, too, the augmentations of each image"
        )


def _check_shards(recipe: Recipe) -> None:
    """Raises `ConfigError` if a teacher that is split is not to run in all processes alike."""
    if recipe.shard_teacher and recipe.cache_views:
        raise ConfigError(
            "shard_teacher splits a teacher that runs in every step, and with cache_views it runs "
            "where a process finds nothing kept; leave out one of them"
        )
    if recipe.shard_teacher and recipe.compile:
        raise ConfigError("shard_teacher and compile do not go together; leave out one of them")


def _check_windows(recipe: Recipe) -> None:
    """Raises `ConfigError` if random colors, windows or mosaics are not said in one way."""
    if len(recipe.hsv_jitter) not in (0, 3):
        raise ConfigError(
            f"hsv_jitter has {len(recipe.hsv_jitter)} numbers; give three, of hue, saturation and "
            "value, such as 0.015,0.7,0.4"
        )
    key = "scale_jitter" if recipe.scale_jitter else "shift"
    if (recipe.scale_jitter or recipe.shift) and (recipe.max_zoom or 1) > 1:
        raise ConfigError(
            f"{key} takes the place of the zoom, and max_zoom = {recipe.max_zoom:g} is given, too; "
            "give max_zoom = 1, or scale_jitter = 0 and shift = 0"
        )
    if recipe.mosaic_fraction == 1:
        return
    if not recipe.mosaic_probability:
        raise ConfigError(
            "mosaic_fraction is about mosaics, and there are none; give mosaic_probability, too"
        )
    if recipe.cache_views:
        raise ConfigError(
            "with cache_views the first epochs' images come again, so that mosaics cannot end "
            "before the run does; leave out mosaic_fraction or cache_views"
        )


def check_early(recipe: Recipe) -> None:
    """Refuse what needs no torch to be seen: a method or a path that is not there.

    Raises:
        ConfigError: there is no such method, teacher or weights file.
        DataError: there is no such folder or file of data.
    """
    if not (recipe.imports or entry_points(group=GROUP)):
        names = shipped_methods()
        for name in recipe.method.split("+"):
            if name.strip() not in names:
                hint = nearest(name.strip(), names)
                raise ConfigError(f"there is no method '{shortened(name.strip())}'{hint}")
    if recipe.task in LABEL_TASKS and (option := window_option(recipe)):
        raise ConfigError(f"{option} is for images with boxes or masks; leave it out")
    for source in (recipe.data, recipe.extra):
        kind, _, path = source.partition(":")
        if kind in ("folder", "csv", "npz") and not Path(path).exists():
            raise DataError(f"there is no {'folder' if kind == 'folder' else 'file'} '{path}'")
        if kind == "wds" and not (whole := _before_pattern(Path(path))).exists():
            raise DataError(f"there is no file or folder '{whole}', where shards are to be")
    if recipe.weights not in ("", "pretrained") and not Path(recipe.weights).exists():
        raise ConfigError(f"there is no weights file '{recipe.weights}'")
    published = recipe.teacher.partition("/")[0] in PUBLISHED
    if recipe.teacher and not published and not Path(recipe.teacher).exists():
        raise unknown_teacher(recipe.teacher)


def _before_pattern(path: Path) -> Path:
    """The part of a path before its first braces or wildcard."""
    places = (n for n, part in enumerate(path.parts) if set(part) & set("{*?"))
    return Path(*path.parts[: next(places, None)])


def window_option(recipe: Recipe) -> str:
    """The option that moves or joins images as only boxes and masks follow, or ""."""
    keys = ("mosaic_probability", "scale_jitter", "shift")
    return next(("--" + key.replace("_", "-") for key in keys if getattr(recipe, key)), "")


def unknown_teacher(name: str) -> ConfigError:
    """The error for a teacher that is neither a path nor a published network."""
    beside = Path(name).parent
    choices = [str(path) for path in beside.iterdir()] if beside.is_dir() else []
    return ConfigError(
        f"there is no teacher '{shortened(name)}'{nearest(name, choices, list_all=False)}; give "
        "the directory of a run, a weights file, timm/NAME, torchvision/NAME or, in Python, a "
        "module"
    )


def shipped_methods() -> list[str]:
    """Names of the methods of this package: those of their files."""
    return sorted(module.name.replace("_", "-") for module in iter_modules([str(_METHODS)]))


def check_plain_values(values: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for integers beyond a tensor's, and texts that no path can hold."""
    for key, value in values.items():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, int) and abs(item) > _MAX_INTEGER:
                raise ConfigError(f"{key} = {shortened(str(item), 30)} is beyond all use")
            if isinstance(item, str | Path) and "\0" in str(item):
                raise ConfigError(f"{key} holds a zero byte")


def first_error(error: ValidationError) -> str:
    """What the first fault is, for a person."""
    first = error.errors()[0]
    name = shortened(".".join(str(part) for part in first["loc"][:1]))
    reason = first["msg"][0].lower() + first["msg"][1:]
    given = first["input"]
    plain = given is None or isinstance(given, str | int | float | list | tuple | dict)
    shown = shortened(repr(given)) if plain else type(given).__name__
    return f"{name} = {shown} does not fit: {shortened(reason, 200)}"
