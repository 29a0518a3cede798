"""What a file format is: how a predictor is written, run, opened again and shown on its card."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..core import ArtifactError, ConfigError, Method, Task
from ..data import ImageData
from .int8_export import Int8Comparison
from .int8_options import Int8Options
from .normalized_input import NormalizedInput
from .verify import ExportVerification

REQUIRED_TEXTS = ("classes", "task", "preparation", "predictor")
"""Names of the texts that every file with a graph holds."""
FILE_TEXTS = (*REQUIRED_TEXTS, "parameters", "macs")
"""Names of all texts that are read again; the first exports did not tell costs."""


class OpenedFile(NamedTuple):
    """A network's file, opened by its runtime.

    Attributes:
        run: from images or clips float32 in 0 … 1 to the tensors that the file returns.
        texts: that the file holds, by name.
    """

    run: Callable[[Tensor], Any]
    texts: Mapping[str, str]


class FileFormat(ABC):
    """A format of `selfdistill export`, one file of `formats/`, which is named as the format is.

    Attributes:
        file: name of the network's file in its folder; `open` knows files by its ending.
        runtime: package that runs the file, as PyPI names it.
        hub_library: the Hugging Face Hub's name of the library that the file is for.
        holds_graph: whether the file holds the network itself, with its normalization. Of others,
            which hold weights under the network's own keys, BatchNorm is never fused.
        exporter: a library that fuses BatchNorm by itself when it writes; "" where there is none.
        input_scale: who normalizes the images, a clause of the card.
        batch: which numbers of images the file takes, a clause of the card.
        upload: command that takes the folder, {folder}, to a hub; "" where there is none.
    """

    file: str
    runtime = "torch"
    hub_library = "pytorch"
    holds_graph = True
    exporter = ""
    input_scale = "which the file brings to its own scale"
    batch = "B is free"
    upload = ""

    @property
    def name(self) -> str:
        """The value of `--format`."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    def check(self, method: Method, predictor: str, data: ImageData) -> None:  # noqa: B027
        """Raise `ConfigError` if the format cannot hold this predictor.

        Args:
            method: trained.
            predictor: name of one of its predictors.
            data: at the image size of the file.
        """

    @abstractmethod
    def write(
        self,
        network: nn.Module,
        folder: Path,
        data: ImageData,
        task: Task,
        metadata: Mapping[str, str],
    ) -> Callable[[Tensor], Any]:
        """Write the file, and return it as a function of images, run as a user would run it.

        Args:
            network: as `extract_predictor` or `fuse_batchnorm` returns it.
            folder: to write into.
            data: at the image size of the file.
            task: of the data.
            metadata: texts by name for the file to hold.

        Raises:
            ConfigError: the format cannot hold the network, or an extra is not installed.
        """

    def quantize(
        self,
        folder: Path,
        verification: ExportVerification,
        data: ImageData,
        task: Task,
        options: Int8Options | None,
        ranges: Mapping[str, tuple[float, float]],
    ) -> Int8Comparison | None:
        """Make the file in int8 of the one that was verified; None in formats of float32.

        Args:
            folder: that `write` wrote into.
            verification: of the file in float32.
            data: at the image size of the file.
            task: of the data.
            options: what the file may lose; None is what `Int8Options` has.
            ranges: of what layers read, as training learned them, see `learned_ranges`.
        """
        return None

    def open(self, file: Path, num_threads: int = 0) -> OpenedFile:
        """Open a file that `write` wrote, on the CPU.

        Args:
            file: that exists.
            num_threads: of the runtime; 0 are as many as it takes.

        Raises:
            ConfigError: it holds weights alone, or an extra is not installed.
            ArtifactError: it cannot be read.
        """
        if not self.holds_graph:
            raise ConfigError(
                f"{file} holds weights and no network; give the run that it was exported from, or "
                "export it as onnx or pt2"
            )
        try:
            return self._open(file, num_threads)
        except (ConfigError, ArtifactError):
            raise
        except Exception as error:  # runtimes have classes of their own for every kind of damage
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ArtifactError(f"{file} cannot be read as {self.name} ({reason})") from None

    def _open(self, file: Path, num_threads: int) -> OpenedFile:
        """Open a file; whatever is raised says that it is damaged."""
        raise NotImplementedError

    def files(self, file: Path) -> list[Path]:
        """All files that hold the network, the named one first."""
        return [file]

    def size(self, file: Path) -> int:
        """Bytes of all files that hold the network."""
        return sum(part.stat().st_size for part in self.files(file))

    @abstractmethod
    def code(self, data: ImageData, network: str) -> str:
        """Python code that runs the file on pictures and prints the predictions.

        Args:
            data: at the image size of the file; `task` is a task of this package.
            network: code that builds the architecture, for weights alone.
        """

    def notes(self, data: ImageData) -> str:
        """What else a user has to know, Markdown behind the sentences on the outputs."""
        return ""


def deployable(network: nn.Module, data: ImageData, task: Task) -> NormalizedInput:
    """A network from images in 0 … 1 to what is deployed, boxes or full-size masks included."""
    sides = len(data.train.shape) - 1
    whole = NormalizedInput(task.inference_module(network), data.mean, data.std, sides)
    return whole.eval()
