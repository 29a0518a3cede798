"""The interfaces that all else stands on: methods, tasks, batches, errors, random numbers."""

from ..errors import (
    ArtifactError,
    ConfigError,
    DataError,
    DivergenceError,
    MissingExtraError,
    ResourceError,
    RunBusyError,
    SelfdistillError,
    UnknownDataError,
    check_kind,
    nearest,
    shortened,
)
from .batch import Batch, Needs, Progress, StepOutput
from .extras import require
from .files import atomic_directory, atomic_file, read_regular, write_atomically
from .frozen import Frozen, averaged_state, load_tensors, trained_state
from .method import STUDENT, Kind, Method, NetworkWrapper, Provenance
from .registry import METHODS, Option, Registry, options
from .task import IGNORE, Task

__all__ = [
    "IGNORE",
    "METHODS",
    "STUDENT",
    "ArtifactError",
    "Batch",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "Frozen",
    "Kind",
    "Method",
    "MissingExtraError",
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
    "UnknownDataError",
    "atomic_directory",
    "atomic_file",
    "averaged_state",
    "check_kind",
    "load_tensors",
    "nearest",
    "options",
    "read_regular",
    "require",
    "shortened",
    "trained_state",
    "write_atomically",
]
