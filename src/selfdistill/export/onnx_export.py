"""Export to ONNX, which runs without torch and without this library."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core import ConfigError
from ..core.extras import require
from .torch_export import trace_network


def write_onnx(
    network: nn.Module,
    example: Tensor,
    path: Path,
    *,
    input_name: str = "images",
    output_names: Sequence[str] = ("logits",),
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write an ONNX file for batches of any size.

    Args:
        network: in evaluation mode, on the CPU; takes one tensor and returns one per output name.
        example: (B, C, H, W) with B of 2 or more.
        path: of the file.
        input_name, output_names: of the file's tensors.
        metadata: texts by name, kept as the file's `metadata_props`.

    Raises:
        ConfigError: the network cannot be traced, holds an operation that ONNX lacks, or the extra
            `export` is not installed.
    """
    for package in ("onnx", "onnxscript"):
        require(package, extra="export", purpose="an export to ONNX")
    graph = trace_network(network, example)
    try:
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: "batch"},),
            input_names=[input_name],
            output_names=list(output_names),
        )
    except torch.onnx.OnnxExporterError as error:
        reason = (str(error.__cause__ or error).splitlines() or [""])[0]
        raise ConfigError(
            f"the network cannot be written as ONNX ({reason}); --format pt2 keeps its graph"
        ) from error
    assert program is not None
    program.model.metadata_props.update(metadata or {})
    program.save(path, external_data=False)


def onnx_session(path: Path, num_threads: int = 0) -> Any:
    """An onnxruntime session of the file on the CPU; 0 threads are as many as onnxruntime takes."""
    onnxruntime = require("onnxruntime", extra="export", purpose="an export to ONNX")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnx_runner(path: Path) -> Callable[[Tensor], Any]:
    """The file as a function of images, run by onnxruntime on the CPU; one tensor, or several."""
    return session_runner(onnx_session(path))


def session_runner(session: Any) -> Callable[[Tensor], Any]:
    """An onnxruntime session as a function of images; one tensor, or several."""
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Any:
        outputs = [torch.from_numpy(array) for array in session.run(None, {name: images.numpy()})]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return run
