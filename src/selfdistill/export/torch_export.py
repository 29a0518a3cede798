"""Export by `torch.export` to a pt2 file, which torch runs without the network's code."""

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


def trace_network(
    network: nn.Module, example: Tensor, *, any_batch: bool = True
) -> ExportedProgram:
    """Trace the network's graph, for batches of any size or for that of the example.

    Args:
        network: in evaluation mode, on the CPU; takes one tensor.
        example: (B, C, H, W), for any batch with B of 2 or more; all other sizes are fixed.
        any_batch: whether the batch's size is free.

    Raises:
        ConfigError: the network cannot be traced, or its graph is valid for one batch size only.
    """
    shapes = ({0: Dim("batch")},) if any_batch else None
    number = "any number of images" if any_batch else f"a batch of {len(example)}"
    try:
        with torch.no_grad(), suppressed_output():
            graph = torch.export.export(network, (example,), dynamic_shapes=shapes)
    except Exception as error:  # a user's code may raise anything when traced
        raise ConfigError(
            f"the network cannot be written as a graph for {number} "
            f"({_first_line(error)}); --format safetensors keeps its weights"
        ) from error
    for part in graph.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    graph.example_inputs = None  # a file would hold them as a pickle
    return graph


@contextmanager
def suppressed_output() -> Iterator[None]:
    """Context without the logs and prints of libraries that write or read graphs."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(level)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def write_pt2(
    network: nn.Module, example: Tensor, path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a pt2 file, which `torch.export.load` reads.

    Args:
        network, example: as `trace_network` takes them.
        path: of the file.
        metadata: texts by name, kept in the file.

    Raises:
        ConfigError: see `trace_network`.
    """
    torch.export.save(trace_network(network, example), path, extra_files=dict(metadata or {}))


def pt2_runner(path: Path) -> Callable[[Tensor], Any]:
    """The file as a function of images; one tensor, or several."""
    return load_pt2(path, {})


def load_pt2(path: Path, metadata: dict[str, str]) -> nn.Module:
    """The network in a file; texts that the file holds are put into `metadata` by their names."""
    return torch.export.load(path, extra_files=metadata).module()
