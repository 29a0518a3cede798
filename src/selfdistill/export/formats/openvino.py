"""OpenVINO's own form of a graph, for processors, graphics and NPUs of Intel."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ...core import ArtifactError, ConfigError, Task
from ...core.extras import require
from ...data import ImageData
from ..file_format import FILE_TEXTS, FileFormat, OpenedFile, deployable
from ..onnx_export import write_onnx
from ..usage_snippet import graph_code, output_names

_CODE = """import json
{imports}import numpy as np
import openvino
from PIL import Image, ImageOps

{prepare}
core = openvino.Core()
model = core.read_model("{file}")
network = core.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
classes = json.loads(model.get_rt_info(["selfdistill", "classes"]).astype(str))
{images}
{names} = network(images.astype(np.float32) / 255).to_tuple()"""
_SECTION = "selfdistill"  # of the texts in the file
_TELEMETRY = "openvino_telemetry"


class OpenVinoFormat(FileFormat):
    """model.xml, the graph, and model.bin, its weights in float32.

    They are made of the ONNX file, which keeps sizes and names, and the loop in which boxes are
    suppressed; `openvino.convert_model` takes that loop from no other form.

    https://docs.openvino.ai/2026/openvino-workflow/model-preparation.html
    """

    file = "model.xml"
    runtime = "openvino"
    hub_library = "openvino"
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
        openvino, file = _import_openvino(), folder / self.file
        with TemporaryDirectory() as scratch:
            graph = Path(scratch) / "model.onnx"
            whole = deployable(network, data, task)
            write_onnx(whole, task.example, graph, output_names=task.output_names)
            try:
                model = openvino.Core().read_model(graph)
                for key, text in metadata.items():
                    model.set_rt_info(text, [_SECTION, key])
                openvino.save_model(model, file, compress_to_fp16=False)
            except RuntimeError as error:
                reason = (str(error).strip().splitlines() or [""])[-1]
                raise ConfigError(
                    f"OpenVINO cannot take the network ({reason}); --format onnx keeps its graph"
                ) from error
        return self._open(file, 0).run

    def files(self, file: Path) -> list[Path]:
        """The graph and its weights."""
        return [file, file.with_suffix(".bin")]

    def _open(self, file: Path, num_threads: int) -> OpenedFile:
        openvino = _import_openvino()
        if missing := next((part for part in self.files(file) if not part.is_file()), None):
            raise ArtifactError(f"{file} has no weights beside it; put {missing.name} there")
        core = openvino.Core()
        model = core.read_model(file)
        texts = {
            key: model.get_rt_info([_SECTION, key]).astype(str)
            for key in FILE_TEXTS
            if model.has_rt_info([_SECTION, key])
        }
        # without it processors with bf16 would compute in that
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        options |= {"INFERENCE_NUM_THREADS": num_threads} if num_threads else {}
        network = core.compile_model(model, "CPU", options)

        def run(images: Tensor) -> Any:
            outputs = [torch.from_numpy(part) for part in network(images.numpy()).to_tuple()]
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

        return OpenedFile(run, texts)

    def code(self, data: ImageData, network: str) -> str:
        """See `FileFormat.code`."""
        names = output_names(data)
        return graph_code(_CODE, data, self.file, names if "," in names else f"({names},)")

    def notes(self, data: ImageData) -> str:
        """On other devices, and on what the package reports."""
        shape = ", ".join(map(str, data.train.shape))
        return (
            f"{self.files(Path(self.file))[1].name} lies beside the file. `core.available_devices` "
            'names devices to take in the place of "CPU"; without the hint a device chooses its '
            "precision by itself, and what was verified is float32. An NPU wants one size, "
            f"`model.reshape([1, {shape}])`, before the network is compiled. The package openvino "
            "reports its use to Intel, unless `opt_in_out --opt_out` was called once."
        )


def _import_openvino() -> Any:
    """The package, which would report each import to Intel; by its own stub it does not."""
    silent = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
    if silent:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # its import fails
    try:
        return require("openvino", extra="openvino", purpose="an OpenVINO file")
    finally:
        if silent:
            del sys.modules[_TELEMETRY]


FORMAT = OpenVinoFormat()
