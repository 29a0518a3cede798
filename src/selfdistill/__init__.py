"""Self-distillation for vision networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison.compare import compare
    from .integrations.lightning import DistillationLightningModule as DistillationLightningModule
    from .integrations.loss import wrap
    from .integrations.timm_task import DistillationTask as DistillationTask
    from .runs.api import (
        Run,
        anytime,
        load,
        train,
    )

    __version__: str

__all__ = ["Run", "__version__", "anytime", "compare", "load", "train", "wrap"]

_HOMES = {
    "Run": ".runs.api",
    "anytime": ".runs.api",
    "load": ".runs.api",
    "train": ".runs.api",
    "wrap": ".integrations.loss",
}
_HOMES["compare"] = ".comparison.compare"
# not in __all__: a star import must not ask for Lightning
_HOMES |= {
    "DistillationTask": ".integrations.timm_task",
    "DistillationLightningModule": ".integrations.lightning",
}


def __getattr__(name: str) -> Any:
    # imported when first asked for: torch takes seconds, and `selfdistill --help` needs none of it
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOMES})
