"""A network as one graph that torch runs without the code that made it: a pt2 file."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from ..core import ConfigError


def traced(network: nn.Module, example: Tensor) -> ExportedProgram:
    """The network's graph for batches of any size.

    Args:
        network: in evaluation mode, on the CPU; takes one tensor.
        example: (B, C, H, W) with B of 2 or more; sizes other than the batch's are kept.

    Raises:
        ConfigError: the network cannot be traced, or its graph holds for one batch size only.
    """
    batch = {0: Dim("batch")}
    try:
        with torch.no_grad(), _quiet():
            graph = torch.export.export(network, (example,), dynamic_shapes=(batch,))
    except Exception as error:  # whatever code does that is shown no numbers
        raise ConfigError(
            "the network cannot be written as a graph for any number of images "
            f"({_reason(error)}); --format safetensors keeps its weights"
        ) from error
    for part in graph.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    graph.example_inputs = None  # which a file would hold as a pickle
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch logs and prints of the graph that it failed at."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(level)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def write_program(
    network: nn.Module, example: Tensor, path: Path, *, notes: Mapping[str, str] | None = None
) -> None:
    """Write a pt2 file, which `torch.export.load` reads.

    Args:
        network, example: as `traced` takes them.
        path: the file.
        notes: texts by name, kept in the file.

    Raises:
        ConfigError: as of `traced`.
    """
    torch.export.save(traced(network, example), path, extra_files=dict(notes or {}))


def program_runner(path: Path) -> Callable[[Tensor], Any]:
    """What the file says to images: a tensor, or several."""
    return torch.export.load(path).module()
