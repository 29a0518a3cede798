"""One file a format, named as the format is. There is no list to edit; imports no torch."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from ...errors import ConfigError, nearest

if TYPE_CHECKING:
    from ..file_format import FileFormat


def format_names() -> list[str]:
    """The values of `--format`."""
    return sorted(module.name.replace("_", "-") for module in iter_modules(__path__))


def check_format(name: str) -> None:
    """Raise `ConfigError` if there is no such format."""
    if name not in format_names():
        raise ConfigError(f"there is no format '{name}'{nearest(name, format_names())}")


def load_format(name: str) -> "FileFormat":
    """A format by its name.

    Raises:
        ConfigError: there is no such format.
    """
    check_format(name)
    file_format: FileFormat = import_module(f"{__name__}.{name.replace('-', '_')}").FORMAT
    return file_format


def format_of(file: Path) -> "FileFormat | None":
    """The format of a file by its ending, or None."""
    formats = map(load_format, format_names())
    return next((each for each in formats if Path(each.file).suffix == file.suffix), None)


def network_file(folder: Path) -> Path | None:
    """The network's file in a folder that `selfdistill export` wrote, or None."""
    files = (folder / load_format(name).file for name in format_names())
    return next((file for file in files if file.is_file()), None)


def graph_endings() -> list[str]:
    """Endings of files that hold a network, and not weights alone."""
    formats = map(load_format, format_names())
    return sorted({Path(each.file).suffix for each in formats if each.holds_graph})
