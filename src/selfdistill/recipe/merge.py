"""Keys put over a recipe's dictionary."""

from collections.abc import Mapping
from typing import Any

from ..core import ConfigError
from .schema import Recipe


def merge_keys(base: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's dictionary with keys put over it; what is no key of a recipe is the method's."""
    options = base.get("options", {})
    if not isinstance(options, Mapping):
        raise ConfigError(f"[options] of a recipe is a table, not {options!r}")
    result = {**base, "options": dict(options)}
    for key, value in keys.items():
        if key == "options":
            result["options"] |= value
        elif key in Recipe.model_fields:
            result[key] = value
        else:
            result["options"][key] = value
    return result
