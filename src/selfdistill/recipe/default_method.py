"""The method that is taken where none is named, by what has been measured. Imports no torch."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

PAGE = "https://github.com/selfdistill/selfdistill/blob/main/docs/guide/choose.md"


class DefaultMethod(NamedTuple):
    """A method, and what speaks for it, a clause."""

    method: str
    reason: str


def default_method(keys: Mapping[str, Any]) -> DefaultMethod:
    """The method for a recipe that names none.

    Classes of images have one for random weights, one for these by the preset `strong`, and one for
    given weights; a task may have its own, and all others share one.

    Args:
        keys: of the recipe; `task`, `weights` and `preset` are read.
    """
    task = str(keys.get("task", "classification"))
    if task != "classification":
        return _defaults().get(task, _defaults()["other_tasks"])
    if keys.get("weights"):
        return _defaults()["weights"]
    return _defaults()["strong" if keys.get("preset") == "strong" else "scratch"]


@cache
def _defaults() -> dict[str, DefaultMethod]:
    text = Path(__file__).with_name("default_methods.toml").read_text(encoding="utf-8")
    return {case: DefaultMethod(**table) for case, table in tomllib.loads(text).items()}
