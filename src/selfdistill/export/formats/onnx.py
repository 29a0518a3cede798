"""ONNX, which runs without torch and without this library."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...core import Task
from ...data import ImageData
from ..file_format import FileFormat, OpenedFile, deployable
from ..onnx_export import onnx_runner, onnx_session, session_runner, write_onnx
from ..usage_snippet import graph_code, output_names

_CODE = """import json
{imports}import numpy as np
import onnxruntime
from PIL import Image, ImageOps

{prepare}
session = onnxruntime.InferenceSession("{file}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
{images}
{names} = session.run(None, {{"images": images.astype(np.float32) / 255}})"""


class OnnxFormat(FileFormat):
    """A graph of ONNX, run by onnxruntime."""

    file = float_file = "model.onnx"
    runtime = "onnxruntime"
    hub_library = "onnx"
    exporter = "the ONNX exporter"

    def write(
        self,
        network: nn.Module,
        folder: Path,
        data: ImageData,
        task: Task,
        metadata: Mapping[str, str],
    ) -> Callable[[Tensor], Any]:
        """See `FileFormat.write`."""
        file = folder / self.float_file
        whole = deployable(network, data, task)
        write_onnx(whole, task.example, file, output_names=task.output_names, metadata=metadata)
        return onnx_runner(file)

    def _open(self, file: Path, num_threads: int) -> OpenedFile:
        session = onnx_session(file, num_threads)
        return OpenedFile(session_runner(session), session.get_modelmeta().custom_metadata_map)

    def code(self, data: ImageData, network: str) -> str:
        """See `FileFormat.code`."""
        names = output_names(data)
        return graph_code(_CODE, data, self.file, names if "," in names else f"({names},)")


FORMAT = OnnxFormat()
