"""ExecuTorch's programs, which phones run: iOS, Android, and small devices."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core import ConfigError, Method, Task
from ...core.extras import require
from ...data import ImageData
from ...tasks import task_family
from ..file_format import FILE_TEXTS, FileFormat, OpenedFile, deployable
from ..torch_export import suppressed_output, trace_network
from ..usage_snippet import graph_code, output_names

_CODE = """import json
{imports}import numpy as np
import torch
from executorch.runtime import Runtime
from PIL import Image, ImageOps

{prepare}
program = Runtime.get().load_program("{file}")
network = program.load_method("forward")
classes = json.loads(program.load_method("classes").execute([])[0])
{images}
inputs = torch.from_numpy(images).float() / 255
{names} = torch.cat([network.execute([image[None]])[0] for image in inputs])"""


class ExecuTorchFormat(FileFormat):
    """A program whose layers XNNPACK computes in float32; what it lacks, ExecuTorch's own kernels.

    It takes one image at a time. A program for more would plan the memory of its largest batch,
    of which a phone has no use, and takes up to twice as long to write.

    https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-overview.html
    """

    file = "model.pte"
    runtime = "executorch"
    hub_library = "executorch"
    batch = "a call takes one of them, B = 1"

    def check(self, method: Method, predictor: str, data: ImageData) -> None:
        """Raise `ConfigError` of a detector, whose boxes are suppressed in a loop."""
        if task_family(data.task) == "detection":
            raise ConfigError(
                "ExecuTorch has no loops, and boxes are suppressed in one; take --format onnx, "
                "openvino or pt2"
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
        if any(isinstance(module, nn.Conv3d) for module in network.modules()):
            raise ConfigError(
                "ExecuTorch has no convolutions over time; take --format onnx, openvino or pt2"
            )
        exir, partitioner = _import("exir"), _import(_PARTITIONER)
        example, file = task.example[:1], folder / self.file
        # its passes lay channels out themselves, and stumble over weights that are channels-last
        whole = deployable(network, data, task).to(memory_format=torch.contiguous_format)
        graph = trace_network(whole, example, any_batch=False)
        try:
            with _quiet():
                program = exir.to_edge_transform_and_lower(
                    graph,
                    partitioner=[partitioner.XnnpackPartitioner()],
                    constant_methods=dict(metadata),
                ).to_executorch()
            file.write_bytes(program.buffer)
            run = self._open(file, 0).run
            with _quiet():
                run(example)  # a kernel that is not there is missed here at the latest
        except OSError:
            raise
        except Exception as error:  # each pass of the compiler has errors of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"ExecuTorch cannot take the network ({reason}); --format onnx and pt2 keep its "
                "graph"
            ) from error
        return run

    def _open(self, file: Path, num_threads: int) -> OpenedFile:
        """Threads are of all programs in the process."""
        runtime, library = _import("runtime"), _import("extension.pybindings.portable_lib")
        with _quiet():
            if num_threads:
                library._unsafe_reset_threadpool(num_threads)
            program = runtime.Runtime.get().load_program(file)
            names = program.method_names
            texts = {
                key: program.load_method(key).execute([])[0] for key in FILE_TEXTS if key in names
            }
            method = program.load_method("forward")

        def run(images: Tensor) -> Tensor:
            return torch.cat([method.execute([image])[0] for image in images.split(1)])

        return OpenedFile(run, texts)

    def code(self, data: ImageData, network: str) -> str:
        """See `FileFormat.code`."""
        return graph_code(_CODE, data, self.file, output_names(data))

    def notes(self, data: ImageData) -> str:
        """On an app."""
        return (
            "In an app `forward` takes one image and `classes` no input; ExecuTorch's libraries "
            "for Swift, Kotlin and C++ load the file, with the XNNPACK backend linked in."
        )


_PARTITIONER = "backends.xnnpack.partition.xnnpack_partitioner"


def _import(part: str) -> Any:
    """A part of the package, which warns of itself when it is imported."""
    with _quiet():
        return require(f"executorch.{part}", extra="executorch", purpose="an ExecuTorch file")


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without warnings and logs of ExecuTorch, whose library writes to stderr itself."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with warnings.catch_warnings(), suppressed_output():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


FORMAT = ExecuTorchFormat()
