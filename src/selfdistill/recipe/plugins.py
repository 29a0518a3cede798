"""Methods, networks, data sources and tasks that lie outside of this package.

Two ways bring them in: an installed package names its modules under the entry point group
`selfdistill.methods`, which every process loads; and `--import MODULE`, the recipe's key `imports`,
loads a module or a file of the user's own. Importing them is what registers them.
"""

import sys
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConfigError, SelfdistillError

GROUP = "selfdistill.methods"
"""The entry point group that installed packages register under."""


@cache
def load_entry_points() -> None:
    """Import what installed packages offer, once; one that fails is passed over with a warning."""
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:  # somebody else's code: it must not stop this program
            warnings.warn(
                f"the plugin '{entry.name}' ({entry.value}) could not be loaded: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )


def import_recipe_plugins(recipe: Mapping[str, Any], *, run_dir: Path | None = None) -> None:
    """Import what a recipe's dictionary, not yet checked, names by its key `imports`."""
    names = recipe.get("imports") or ()
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        import_plugins(names, run_dir=run_dir)


def import_plugins(names: Iterable[str], *, run_dir: Path | None = None) -> None:
    """Import modules by their dotted names, or files by their paths, each once.

    Args:
        names: `package.module`, which may lie in the working directory, or `folder/file.py`.
        run_dir: the run whose recipe names them. A file inside of it is refused: a run that came
            from elsewhere would bring its own code.

    Raises:
        ConfigError: there is no such module or file, or importing it fails.
    """
    load_entry_points()
    for name in names:
        if name.endswith(".py"):
            _import_file(Path(name).expanduser(), name, run_dir)
        else:
            _import(name, Path.cwd(), name)


def _import_file(path: Path, name: str, run_dir: Path | None) -> None:
    if not path.is_file():
        raise ConfigError(
            f"there is no file '{name}' to import; its path starts at the working directory, which "
            "for a run is the one that it was trained in"
        )
    path = path.resolve()
    if run_dir is not None and path.is_relative_to(run_dir.resolve()):
        raise ConfigError(
            f"the recipe of {run_dir} imports code that lies in the run itself, which is never "
            "executed; move the file out of the run, and correct `imports` in its recipe.toml"
        )
    module = _import(path.stem, path.parent, name)
    file = getattr(module, "__file__", None)
    if file is None or Path(file).resolve() != path:
        raise ConfigError(
            f"'{name}' cannot be imported: another module is named '{path.stem}'; rename the file"
        )


def _import(module: str, folder: Path, name: str) -> ModuleType:
    """A module that may lie in a folder, which stays on the path for processes to come."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return import_module(module)
    except SelfdistillError:
        raise
    except Exception as error:  # the user's own code
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            raise ConfigError(
                f"there is no module '{name}' to import; give a dotted name or the path of a .py "
                "file"
            ) from None
        raise ConfigError(f"importing '{name}' failed: {type(error).__name__}: {error}") from error
