"""Features of any network by the names of its modules, and networks split at those modules."""

from .stage_detection import (
    ModuleOutput,
    as_map,
    evaluation_mode,
    example_output,
    find_taps,
    module_outputs,
)
from .taps import Taps, Teacher

__all__ = [
    "ModuleOutput",
    "Taps",
    "Teacher",
    "as_map",
    "evaluation_mode",
    "example_output",
    "find_taps",
    "module_outputs",
]
