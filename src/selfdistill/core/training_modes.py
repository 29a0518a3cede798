"""Whether modules train or evaluate, put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def restored_modes(module: nn.Module) -> Iterator[None]:
    """Context after which every module is in the mode that it had."""
    modes = {each: each.training for each in module.modules()}
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode
