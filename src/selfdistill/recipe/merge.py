"""Keys put over a recipe's dictionary."""

from collections.abc import Mapping
from typing import Any

from ..core import ConfigError
from .document import METHOD_KEYS
from .options import companion_keys
from .schema import Recipe


def merge_keys(base: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's dictionary with keys put over it; what is no key of a recipe is the method's.

    Where the keys name another method, the options of the first are left out, and so are teacher,
    peers and extra images that the other has no use for.
    """
    base = _of_method(base, keys.get("method"))
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


def _of_method(base: Mapping[str, Any], method: Any) -> Mapping[str, Any]:
    if not isinstance(method, str) or base.get("method", method) == method:
        return base
    left_out = set(METHOD_KEYS) - companion_keys(method)
    return {key: value for key, value in base.items() if key not in left_out}
