"""The page of the Python interface has all that `import selfdistill` offers."""

import importlib
import inspect
import re

from blocks import ROOT

import selfdistill

PAGE = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")


def test_everything_offered_has_an_entry():
    shown = set(re.findall(r"^::: (\S+)$", PAGE, re.MULTILINE))
    for name in set(selfdistill.__all__) - {"__version__"}:
        offered = getattr(selfdistill, name)
        assert f"{inspect.getmodule(offered).__name__}.{name}" in shown
        assert f"`{name}`" in PAGE


def test_every_entry_is_where_it_says():
    for entry in re.findall(r"^::: (\S+)$", PAGE, re.MULTILINE):
        place, _, name = entry.rpartition(".")
        module = importlib.import_module(place)
        value = getattr(module, name, None)
        defined = inspect.getmodule(value) in (module, value)  # or a module itself
        assert defined or name in getattr(module, "__all__", ()), entry
