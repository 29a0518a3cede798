"""Floor 0: the contracts that all else stands on; knows torch and the standard library only."""

from .batch import Batch, Needs, Progress, Step
from .errors import (
    ArtefactError,
    ConfigError,
    DataError,
    DivergenceError,
    ResourceError,
    RunBusyError,
    SelfdistillError,
    nearest,
)
from .frozen import Frozen, load_tensors, trained_state
from .method import Evidence, Kind, Method
from .registry import METHODS, Option, Registry, options
from .task import IGNORE, Task

__all__ = [
    "IGNORE",
    "METHODS",
    "ArtefactError",
    "Batch",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "Evidence",
    "Frozen",
    "Kind",
    "Method",
    "Needs",
    "Option",
    "Progress",
    "Registry",
    "ResourceError",
    "RunBusyError",
    "SelfdistillError",
    "Step",
    "Task",
    "load_tensors",
    "nearest",
    "options",
    "trained_state",
]
