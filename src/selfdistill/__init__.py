"""Self-distillation for vision networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison.compare import compare
    from .diagnosis.diagnose import diagnose
    from .engine.callback import Callback
    from .integrations.lightning import DistillationLightningModule as DistillationLightningModule
    from .integrations.timm_task import DistillationTask as DistillationTask
    from .integrations.wrap import wrap
    from .runs.measure import measure
    from .runs.predict import predict
    from .runs.run import Run, load
    from .runs.train import train

    __version__: str

_HOMES = {
    "Callback": ".engine.callback",
    "Run": ".runs.run",
    "compare": ".comparison.compare",
    "diagnose": ".diagnosis.diagnose",
    "load": ".runs.run",
    "measure": ".runs.measure",
    "predict": ".runs.predict",
    "train": ".runs.train",
    "wrap": ".integrations.wrap",
}
__all__ = [
    "Callback",
    "Run",
    "__version__",
    "compare",
    "diagnose",
    "load",
    "measure",
    "predict",
    "train",
    "wrap",
]
# not in __all__: a star import must not ask for Lightning
_OPTIONAL = {
    "DistillationLightningModule": ".integrations.lightning",
    "DistillationTask": ".integrations.timm_task",
}


def __getattr__(name: str) -> Any:
    # imported when first asked for: torch takes seconds, and `selfdistill --help` needs none of it
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    homes = _HOMES | _OPTIONAL
    if name not in homes:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(homes[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_OPTIONAL})
