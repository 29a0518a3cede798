"""A network as an ONNX file, which runs without torch and without this library."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core import ConfigError
from .torch_export import traced


def write_onnx(
    network: nn.Module,
    example: Tensor,
    path: Path,
    *,
    input_name: str = "images",
    output_names: Sequence[str] = ("logits",),
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write an ONNX file for batches of any size.

    Args:
        network: in evaluation mode, on the CPU; takes one tensor and gives one for each name.
        example: (B, C, H, W) with B of 2 or more.
        path: the file.
        input_name, output_names: what the tensors are called in the file.
        notes: texts by name, kept as the file's `metadata_props`.

    Raises:
        ConfigError: the network cannot be traced, or holds an operation that ONNX has not.
    """
    graph = traced(network, example)
    try:
        made = torch.onnx.export(
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
    assert made is not None
    made.model.metadata_props.update(notes or {})
    made.save(path, external_data=False)


def onnx_runner(path: Path) -> Callable[[Tensor], Any]:
    """What the file says to images, computed by onnxruntime on the CPU: a tensor, or several."""
    # slow to import, and nothing else needs it
    from onnxruntime import InferenceSession  # type: ignore[attr-defined]

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Any:
        outputs = [torch.from_numpy(each) for each in session.run(None, {name: images.numpy()})]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return run
