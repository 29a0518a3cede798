"""Errors of users: one class, one exit code, one sentence each. Imports no torch."""

import difflib
from collections.abc import Iterable
from typing import Any


class SelfdistillError(Exception):
    """An error that a user can fix; the command prints its sentence and exits with `exit_code`."""

    exit_code = 1


class ConfigError(SelfdistillError, ValueError):
    """A wrong name, option, key or combination."""

    exit_code = 2


class MissingExtraError(ConfigError):
    """An optional dependency that is not installed."""


class RunBusyError(SelfdistillError):
    """The run directory exists already or another process trains in it."""

    exit_code = 3


class DataError(SelfdistillError, ValueError):
    """Missing, empty, corrupt or incompatible data."""

    exit_code = 4


class UnknownDataError(DataError):
    """A name that is no data set's."""


class DivergenceError(SelfdistillError, ArithmeticError):
    """A loss or a gradient is no longer finite."""

    exit_code = 5


class ArtifactError(SelfdistillError):
    """A checkpoint or weights file that is corrupt, untrusted or made by a newer version."""

    exit_code = 6


class ResourceError(SelfdistillError, OSError):
    """The disk, the memory or a permission does not allow it."""

    exit_code = 7


def nearest(word: str, choices: Iterable[str], *, list_all: bool = True) -> str:
    """A hint for a misspelt name, ` (did you mean 'layer4'?)`, or the choices if none is near."""
    word, choices = shortened(word), list(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    if not (choices and list_all):
        return ""
    shown = ", ".join(choices[:12]) + (", …" if len(choices) > 12 else "")
    return f" (there are: {shown})"


def shortened(text: str, length: int = 80) -> str:
    """A text of a user's for a sentence, cut where it is long."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def check_kind(what: str, given: Any, kind: Any, wanted: str) -> None:
    """Raises `ConfigError` for an argument in Python that is of another kind.

    Args:
        what: the argument, as a sentence begins.
        given: what it was given.
        kind: as `isinstance` takes it.
        wanted: the kind in words.
    """
    if not isinstance(given, kind):
        name = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
        raise ConfigError(f"{what} is {wanted}, and this is {name}")
