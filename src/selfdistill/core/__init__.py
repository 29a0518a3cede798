"""Floor 0: the contracts that all else stands on; knows torch and the standard library only."""

from .batch import Batch, Needs, Progress, StepOutput
from .errors import (
    ArtifactError,
    ConfigError,
    DataError,
    DivergenceError,
    ResourceError,
    RunBusyError,
    SelfdistillError,
    nearest,
)
from .frozen import Frozen, load_tensors, trained_state
from .method import Kind, Method, NetworkWrapper, Provenance
from .registry import METHODS, Option, Registry, options
from .task import IGNORE, Task

__all__ = [
    "IGNORE",
    "METHODS",
    "ArtifactError",
    "Batch",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "Frozen",
    "Kind",
    "Method",
    "Needs",
    "NetworkWrapper",
    "Option",
    "Progress",
    "Provenance",
    "Registry",
    "ResourceError",
    "RunBusyError",
    "SelfdistillError",
    "StepOutput",
    "Task",
    "load_tensors",
    "nearest",
    "options",
    "trained_state",
]
