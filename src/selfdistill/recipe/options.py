"""The options of a method, or of several that are joined by `+`, checked against signatures."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import ConfigDict, ValidationError, create_model

from .. import methods as _all  # noqa: F401  importing them is what registers them
from ..core import METHODS, ConfigError, Method, Option, nearest, options
from .document import COMPANION_KEYS, check_plain_values, first_error
from .fields import Recipe
from .plugins import load_entry_points

_UNLABELED = "embedding"
"""The task of methods that read no label."""


def method_classes(name: str) -> dict[str, type[Method]]:
    """The methods that `a+b` joins, by name; of a plain name that one.

    Raises:
        ConfigError: an unknown method, or one that is named twice.
    """
    names = [part.strip() for part in name.split("+")]
    if len(set(names)) < len(names):
        raise ConfigError(f"'{name}' names a method twice")
    load_entry_points()
    return {part: METHODS[part] for part in names}


def is_baseline(method: str) -> bool:
    """Whether a method is the plain training that others are compared with."""
    return {cls.kind for cls in method_classes(method).values()} == {"baseline"}


def check_companions(name: str, teacher: bool, peers: bool, extra: bool = False) -> None:
    """Raises `ConfigError` if there is a teacher, a peer or a source of extra images in vain."""
    kinds = {cls.kind for cls in method_classes(name).values()}
    if extra and not reads_extra(name):
        others = ", ".join(n for n in METHODS if METHODS[n].needs.extra)
        raise ConfigError(f"method '{name}' has no use for extra images; these have: {others}")
    for what, there, kind in (("a teacher", teacher, "offline"), ("peers", peers, "online")):
        if there and kind not in kinds:
            others = ", ".join(n for n in METHODS if METHODS[n].kind == kind)
            raise ConfigError(f"method '{name}' has no use for {what}; these have: {others}")


def check_pool(name: str, extra: str) -> None:
    """Raises `ConfigError` if a method that reads extra images alone has none."""
    if not extra and any(cls.needs.unlabeled for cls in method_classes(name).values()):
        raise ConfigError(
            f"method '{name}' learns from images without labels alone: give --extra folder:PATH or "
            "npz:FILE"
        )


def task_of(name: str, chosen: str) -> str:
    """The task that is chosen, or where none is, that of the method.

    Raises:
        ConfigError: the method reads no label, and a task with labels is chosen, or it is joined
            with one that reads them.
    """
    classes = method_classes(name)
    unlabeled = [part for part, cls in classes.items() if cls.needs.embeddings]
    if not unlabeled:
        return chosen or Recipe.model_fields["task"].default
    if len(classes) > 1:
        raise ConfigError(
            f"'{unlabeled[0]}' reads no label and is joined with no other method; train with it "
            "first, and give its run as --weights to the other"
        )
    if chosen not in ("", _UNLABELED):
        raise ConfigError(
            f"method '{name}' reads no label, so its task is {_UNLABELED} and not {chosen}; leave "
            f"--task out, and give its run as --weights to a method of {chosen}"
        )
    return _UNLABELED


def reads_extra(name: str) -> bool:
    """Whether a method, by some choice of options, learns from extra images."""
    return any(cls.needs.extra for cls in method_classes(name).values())


def companion_keys(name: str) -> set[str]:
    """Keys of a recipe for a teacher, peers and extra images, as far as a method uses them."""
    kinds = {cls.kind for cls in method_classes(name).values()}
    keys = {key for kind in kinds for key in COMPANION_KEYS.get(kind, ())}
    return keys | ({"extra"} if reads_extra(name) else set())


def objective(name: str, chosen: Mapping[str, Any]) -> str:
    """The loss of joined methods: the weights of each, and whose supervised term it is."""
    parts = method_classes(name)
    weights = {
        part: {o.name: chosen.get(part, {}).get(o.name, o.default) for o in options(cls).values()}
        for part, cls in parts.items()
    }
    described = [
        f"{part} ({', '.join(f'{o} {v:g}' for o, v in values.items() if _is_weight(o, v))})"
        for part, values in weights.items()
    ]
    first, *others = parts
    terms = " + ".join(text.removesuffix(" ()") for text in described)
    left_out = " and ".join(others)
    return f"{terms}; the supervised term is {first}'s, that of {left_out} is left out"


def _is_weight(option: str, value: Any) -> bool:
    return option.endswith("_weight") and isinstance(value, int | float)


def known_options(name: str) -> dict[str, Option]:
    """All keys that a user may set: `combine`, and of joined methods `muse.combine`, too."""
    parts = method_classes(name)
    plain = {o: option for part in parts for o, option in options(METHODS[part]).items()}
    if len(parts) == 1:
        return plain
    full = {f"{part}.{o}": option for part in parts for o, option in options(METHODS[part]).items()}
    return plain | full


def check_options(name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """All options, the chosen ones checked; of joined methods one dictionary each.

    Raises:
        ConfigError: an unknown option, one that several of the methods have, or a wrong value.
    """
    parts = method_classes(name)
    if len(parts) == 1:
        return _checked(name, chosen)
    sorted_out: dict[str, dict[str, Any]] = {part: {} for part in parts}
    for key, value in chosen.items():
        part, _, option = key.rpartition(".")
        if key in parts and isinstance(value, Mapping):
            sorted_out[key] |= value
        elif part in parts:
            sorted_out[part][option] = value
        else:
            sorted_out[_owner(name, key)][key] = value
    return {part: _checked(part, own) for part, own in sorted_out.items()}


def _owner(name: str, key: str) -> str:
    owners = [part for part in method_classes(name) if key in options(METHODS[part])]
    if len(owners) > 1:
        choices = " or ".join(f"{owner}.{key}" for owner in owners)
        raise ConfigError(f"several of '{name}' have an option '{key}'; write {choices}")
    if not owners:
        hint = nearest(key, known_options(name))
        raise ConfigError(f"method '{name}' has no option '{key}'{hint}")
    return owners[0]


def _checked(name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    known = options(METHODS[name])
    for key in chosen:
        if key not in known:
            raise ConfigError(f"method '{name}' has no option '{key}'{nearest(key, known)}")
    # Off a command line or out of a file without a word for nothing, "none" arrives as None.
    chosen = {
        key: "none" if value is None and "none" in get_args(known[key].annotation) else value
        for key, value in chosen.items()
    }
    fields: dict[str, Any] = {o.name: (o.annotation, o.default) for o in known.values()}
    model = create_model(
        "Options", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields
    )
    try:
        checked = dict(model.model_validate(dict(chosen)))
    except ValidationError as error:
        raise ConfigError(f"method '{name}': {first_error(error)}") from None
    check_plain_values(checked)
    for key, value in checked.items():
        _check_bounds(name, key, value)
    return checked


_ABOVE_ZERO = (lambda value: value > 0), "above 0"
_NOT_NEGATIVE = (lambda value: value >= 0), "0 or above"
_BOUNDS: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": _ABOVE_ZERO,
    "width": _ABOVE_ZERO,
    "_lr_scale": _ABOVE_ZERO,
    "_concentration": _ABOVE_ZERO,
    "_regularization": _ABOVE_ZERO,
    "_fraction": ((lambda value: 0 <= value <= 1), "from 0 to 1"),
    "momentum": ((lambda value: 0 <= value < 1), "0 or above, and below 1"),
}
"""{end of an option's name: (what it may be, in words)}."""


def _check_bounds(name: str, key: str, value: Any) -> None:
    """Raises `ConfigError` for a number beyond what its kind, the end of its name, allows."""
    if not isinstance(value, int | float):
        return
    bounds = [bound for ends, bound in _BOUNDS.items() if key.endswith(ends)]
    for allowed, meaning in bounds or ([_NOT_NEGATIVE] if _is_weight(key, value) else []):
        if not allowed(value):
            raise ConfigError(f"method '{name}': {key} = {value:g} must be {meaning}")
