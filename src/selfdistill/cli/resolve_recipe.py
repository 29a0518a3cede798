"""From the options of `train` to a recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import option_name

if TYPE_CHECKING:
    from ..recipe.schema import Recipe


def recipe_for_resume(run: Path, others: Mapping[str, Any]) -> "Recipe":
    """The recipe of a run that goes on.

    Raises:
        ConfigError: no such run, or one of the other options is given.
    """
    from ..core import ConfigError
    from ..runs.paths import load_recipe

    given = [option_name(key) for key, value in others.items() if value not in (None, [])]
    if given:
        raise ConfigError(
            "--resume goes on by the run's own recipe, of which only --epochs may be raised; leave "
            f"out {' and '.join(given)}"
        )
    return load_recipe(run)


def resolve_recipe(
    keys: Mapping[str, Any], recipe: Path | None = None, settings: Sequence[str] | None = None
) -> "Recipe":
    """The recipe that the file, the options and the pairs of --set make, in this order."""
    from ..recipe.document import METHOD_KEYS, check_early, read, typed_recipe

    file = read(recipe) if recipe else {}
    switched = "method" in keys and file.get("method", keys["method"]) != keys["method"]
    certain = {k: v for k, v in file.items() if not (switched and k in METHOD_KEYS)}
    check_early(typed_recipe({**certain, **keys}))  # before torch is imported, which takes seconds
    from ..recipe.merge import merge_keys
    from ..recipe.network_check import check_networks_early
    from ..recipe.plugins import import_recipe_plugins
    from ..recipe.presets import with_preset
    from ..recipe.schema import parse

    import_recipe_plugins({**file, **keys})  # before methods are asked for their options
    values = merge_keys(file, keys)
    chosen = parse(with_preset(file, {**keys, **_settings(settings or (), keys, values)}))
    check_networks_early(chosen)
    return chosen


def is_method_named(
    keys: Mapping[str, Any], recipe: Path | None, settings: Sequence[str] | None
) -> bool:
    """Whether an option, the file or a pair of --set says which method to train with."""
    from ..recipe.document import read

    file = read(recipe) if recipe else {}
    set_keys = [text.partition("=")[0].strip() for text in settings or ()]
    return "method" in {*file, *keys, *set_keys}


def _settings(
    texts: Sequence[str], given: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    """The pairs of --set, refused where they name nothing or what an option has named."""
    from ..core import ConfigError, nearest
    from ..recipe.default_method import default_method
    from ..recipe.options import known_options
    from ..recipe.schema import Recipe, literal

    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals) or key == "options":
            raise ConfigError(f"--set takes KEY=VALUE, not '{text}'")
        if key in given:
            raise ConfigError(f"--set {key} and {option_name(key)} say the same; give one")
        settings[key] = literal(value)
    named = settings.get("method", values.get("method"))
    method = named or default_method({**values, **settings}).method
    if not isinstance(method, str):
        return settings  # the recipe's check says so
    known = [*known_options(method), *(k for k in Recipe.model_fields if k != "options")]
    for key in settings:
        if key not in known:
            raise ConfigError(
                f"neither a recipe nor method '{method}' has '{key}'{nearest(key, known)}"
            )
    return settings
