"""pt2, the graph of `torch.export`, which torch runs without the network's code."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...core import Task
from ...data import ImageData
from ..file_format import FILE_TEXTS, FileFormat, OpenedFile, deployable
from ..torch_export import load_pt2, pt2_runner, write_pt2
from ..usage_snippet import graph_code, output_names

_CODE = """import json
{imports}import numpy as np
import torch
from PIL import Image, ImageOps

{prepare}
metadata = {{"classes": ""}}
network = torch.export.load("{file}", extra_files=metadata).module()
classes = json.loads(metadata["classes"])
{images}
{names} = network(torch.from_numpy(images).float() / 255)"""


class Pt2Format(FileFormat):
    """A graph of `torch.export`, run by torch."""

    file = "model.pt2"

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
        write_pt2(deployable(network, data, task), task.example, file, metadata=metadata)
        return pt2_runner(file)

    def _open(self, file: Path, num_threads: int) -> OpenedFile:
        """Threads are torch's own."""
        texts = dict.fromkeys(FILE_TEXTS, "")
        network = load_pt2(file, texts)
        return OpenedFile(network, {key: text for key, text in texts.items() if text})

    def code(self, data: ImageData, network: str) -> str:
        """See `FileFormat.code`."""
        return graph_code(_CODE, data, self.file, output_names(data))


FORMAT = Pt2Format()
