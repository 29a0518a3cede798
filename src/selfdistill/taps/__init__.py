"""Features of any network by the names of its modules, and networks split at those modules."""

from .feature_map import as_map, count_prefix_tokens, same_aspect
from .stage_detection import (
    ModuleOutput,
    beside,
    check_uncompiled,
    evaluation_mode,
    example_output,
    find_taps,
    module_outputs,
    training_output,
)
from .taps import Taps, Teacher, resolve_taps

__all__ = [
    "ModuleOutput",
    "Taps",
    "Teacher",
    "as_map",
    "beside",
    "check_uncompiled",
    "count_prefix_tokens",
    "evaluation_mode",
    "example_output",
    "find_taps",
    "module_outputs",
    "resolve_taps",
    "same_aspect",
    "training_output",
]
