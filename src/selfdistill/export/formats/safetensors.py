"""Weights alone in a safetensors file, for code that has the architecture."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...core import ConfigError, Method, Task
from ...data import ImageData
from ...modules.composite import composite_description
from ..file_format import FileFormat
from ..normalized_input import NormalizedInput
from ..safetensors_export import copy_with_weights, write_weights

_CODE = """from safetensors import safe_open
from safetensors.torch import load_file

{network}
network.load_state_dict(load_file("{file}"))
network.eval()
metadata = safe_open("{file}", "pt").metadata()  # classes, mean, std"""


class SafetensorsFormat(FileFormat):
    """Weights under the network's own keys."""

    file = "model.safetensors"
    holds_graph = False
    input_scale = "normalized by `mean` and `std`, which stand in the file's header"

    def check(self, method: Method, predictor: str, data: ImageData) -> None:
        """Raise `ConfigError` if no code builds the network."""
        if made_of := composite_description(method):
            raise ConfigError(
                "weights alone need code that builds their network, and there is none for "
                f"{made_of}; take --format onnx or pt2, which hold it whole"
            )

    def write(
        self,
        network: nn.Module,
        folder: Path,
        data: ImageData,
        task: Task,
        metadata: Mapping[str, str],
    ) -> Callable[[Tensor], Any]:
        """See `FileFormat.write`."""
        file = folder / self.file
        write_weights(network, file, metadata={**metadata, **moments(data)})
        loaded = copy_with_weights(file, network)
        # a detector's output decodes its boxes itself
        loaded = task.inference_module(loaded) if task.class_scores else loaded
        sides = len(data.train.shape) - 1
        return NormalizedInput(loaded, data.mean, data.std, sides).eval()

    def code(self, data: ImageData, network: str) -> str:
        """See `FileFormat.code`."""
        return _CODE.format(file=self.file, network=network)


def moments(data: ImageData) -> dict[str, str]:
    """Mean and deviation of the images as texts, for weights that are without them."""
    return {"mean": json.dumps(data.mean), "std": json.dumps(data.std)}


FORMAT = SafetensorsFormat()
