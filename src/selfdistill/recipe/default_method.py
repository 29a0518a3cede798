"""The method that is taken where none is named, by what has been measured. Imports no torch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

PAGE = "https://github.com/selfdistill/selfdistill/blob/main/docs/guide/choose.md"


class DefaultMethod(NamedTuple):
    """A method, and the evidence that speaks for it, a sentence."""

    name: str
    reason: str


_FROM_SCRATCH = DefaultMethod(
    "frskd",
    "on 4,000 images it gained 4.6 points over plain training, within noise of the best, at 2.0 "
    "plain steps for a step",
)
_FINE_TUNING = DefaultMethod(
    "exits",
    "when fine-tuning, its exit before the last stage was 2.9 points above plain training, and the "
    "network itself within noise of it",
)
_OTHER_TASKS = DefaultMethod("ce", "plain training, since no method's gain here is beyond noise")


def default_method(keys: Mapping[str, Any]) -> DefaultMethod:
    """The method for a recipe that names none.

    What classes of images are learned with from random weights, what they are learned with from
    given ones, and what all other tasks are learned with.

    Args:
        keys: of the recipe; `task` and `weights` are read.
    """
    if keys.get("task", "classification") != "classification":
        return _OTHER_TASKS
    return _FINE_TUNING if keys.get("weights") else _FROM_SCRATCH
