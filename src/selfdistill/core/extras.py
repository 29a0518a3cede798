"""Optional dependencies: what is missing, what for, and how to install it."""

from importlib.util import find_spec

from .errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> None:
    """Check that an optional dependency is installed, without importing it.

    Args:
        module: its name when it is imported.
        extra: the extra of this package that installs it.
        purpose: what needs it, a noun phrase.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec(module) is None:
        raise MissingExtraError(
            f'{purpose} need {module}, which is not installed: pip install "selfdistill[{extra}]"'
        )
