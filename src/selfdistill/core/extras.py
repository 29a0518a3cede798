"""Imports of packages that an extra of selfdistill installs."""

from importlib import import_module
from types import ModuleType

from ..errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: its import name.
        extra: the extra that installs it.
        purpose: what needs it, in the singular, the start of a sentence.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f'{purpose} needs {module}; pip install "selfdistill[{extra}]"'
        ) from error
