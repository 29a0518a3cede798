"""Self-distillation for vision networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Run, load, train
    from .loops.plain import wrap

    __version__: str

__all__ = ["Run", "__version__", "load", "train", "wrap"]

_HOMES = {"Run": ".api", "load": ".api", "train": ".api", "wrap": ".loops.plain"}


def __getattr__(name: str) -> Any:
    # imported when first asked for: torch takes seconds, and `selfdistill --help` needs none of it
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
