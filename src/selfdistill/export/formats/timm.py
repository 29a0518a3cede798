"""A folder from which timm builds a network, on the disk or on the Hugging Face Hub."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...core import Method, Task
from ...data import ImageData
from ..file_format import FileFormat
from ..timm_export import check_timm_network, write_timm
from ..timm_usage import timm_code, timm_sentences
from .safetensors import moments


class TimmFormat(FileFormat):
    """Weights and config.json, as timm writes them."""

    file = "model.safetensors"
    runtime = hub_library = "timm"
    holds_graph = False
    input_scale = "normalized by `mean` and `std`, which stand in config.json"
    upload = "hf upload USER/NAME {folder}"

    def check(self, method: Method, predictor: str, data: ImageData) -> None:
        """Raise `ConfigError` unless timm builds the network; see `check_timm_network`."""
        check_timm_network(method, predictor)

    def write(
        self,
        network: nn.Module,
        folder: Path,
        data: ImageData,
        task: Task,
        metadata: Mapping[str, str],
    ) -> Callable[[Tensor], Any]:
        """See `FileFormat.write`."""
        labels = list(data.classes) if task.class_scores else []
        texts = {**metadata, **moments(data)}
        return write_timm(network, folder / self.file, data, label_names=labels, metadata=texts)

    def code(self, data: ImageData, network: str) -> str:
        """See `FileFormat.code`."""
        return timm_code(data)

    def notes(self, data: ImageData) -> str:
        """See `FileFormat.notes`."""
        return timm_sentences(data)


FORMAT = TimmFormat()
