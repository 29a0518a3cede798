"""Methods by name, and the options of their constructors."""

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..errors import ConfigError, nearest
from .method import Method


class Option(NamedTuple):
    """One tunable keyword of a method."""

    name: str
    annotation: Any
    default: Any
    meaning: str


class Registry:
    """A dictionary of method classes with hints for misspelt names."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Method]] = {}

    def add(self, name: str) -> Callable[[type[Method]], type[Method]]:
        """Class decorator: make the method known as `name`."""

        def register(cls: type[Method]) -> type[Method]:
            if name in self._classes:
                raise ValueError(f"two methods are named '{name}'")
            self._classes[name] = cls
            return cls

        return register

    def __getitem__(self, name: str) -> type[Method]:
        if name not in self._classes:
            raise ConfigError(f"there is no method '{name}'{nearest(name, self)}")
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        return len(self._classes)


METHODS = Registry()


def options(method: type[Method]) -> dict[str, Option]:
    """The keyword-only parameters of a method's constructor, with meanings from its docstring."""
    hints = typing.get_type_hints(method.__init__)
    meanings = argument_meanings(inspect.getdoc(method) or "")
    return {
        name: Option(name, hints[name], p.default, meanings.get(name, ""))
        for name, p in inspect.signature(method.__init__).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }


def argument_meanings(doc: str) -> dict[str, str]:
    """`Args:` of a docstring as {name: text on one line}; `a, b: text` counts for both."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", doc, re.MULTILINE | re.DOTALL)
    meanings: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", section[1].rstrip() if section else ""):
        names, _, text = entry.strip().partition(":")
        for name in names.split(","):
            meanings[name.strip()] = " ".join(text.split())
    return meanings
