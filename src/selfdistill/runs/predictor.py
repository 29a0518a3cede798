"""A trained network that takes pictures: a predictor of a run, or an exported file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..core import STUDENT, ArtifactError, ConfigError
from ..data.augment import normalize
from ..data.preparation import Preparation, preparation_of
from ..engine.evaluate import predictor_outputs
from ..export.file_format import REQUIRED_TEXTS
from ..export.formats import format_of, graph_endings
from ..export.int8_options import INT8
from ..export.select_exit import predictor_name, select_exit
from ..export.verify import file_outputs
from ..tasks import task_family

if TYPE_CHECKING:
    from .run import Run


@dataclass(frozen=True)
class Predictor:
    """A network with all that a picture needs on its way through it.

    Attributes:
        name: of the predictor, "student" or "exit2".
        task: the form of its outputs: classification, segmentation, detection or embedding.
        classes: their names.
        preparation: of a picture.
        run: from images (B, C, H, W) uint8 to outputs of the task, on the CPU or a device.
    """

    name: str
    task: str
    classes: list[str]
    preparation: Preparation
    run: Callable[[Tensor], Any]


def predictor_of_run(run: "Run", exit: str | int = STUDENT, device: str | None = None) -> Predictor:
    """A predictor of a run, in fp32.

    Args:
        run: loaded, with its data or with `data_without_images`.
        exit: the number of an exit, a predictor's name, or ``"auto"``, see `select_exit`.
        device: None is the recipe's.

    Raises:
        ConfigError: there is no such predictor.
    """
    session, data = run.session(device=device, precision="fp32"), run.data
    if exit == "auto":
        if run.unfinished:
            raise ConfigError(
                f"this run is not finished: {run.unfinished}; name the exit that is to predict"
            )
        name = select_exit(run.exits, "auto").predictor
    else:
        name = predictor_name(str(exit), list(run.method.predictors()))

    def outputs(images: Tensor) -> Any:
        inputs = normalize(images, data.mean, data.std)
        return predictor_outputs(session.fabric, session.method, name, inputs)

    return Predictor(name, task_family(data.task), data.classes, preparation_of(data), outputs)


def predictor_of_file(file: Path) -> Predictor:
    """The predictor in a file with a graph that `selfdistill export` wrote, on the CPU.

    Raises: see `open_exported`.
    """
    exported = open_exported(file)

    def outputs(images: Tensor) -> Any:
        return file_outputs(exported.run, images)

    texts = exported.texts
    return Predictor(
        texts["predictor"], texts["task"], exported.classes, exported.preparation, outputs
    )


@dataclass(frozen=True)
class ExportedFile:
    """A file with a graph that `selfdistill export` wrote, on the CPU.

    Attributes:
        run: from images or clips float32 in 0 … 1 to the tensors that the file returns.
        texts: that the file holds, by name.
        classes: their names.
        preparation: of a picture.
        format: its name.
        size: bytes of the file, and of those that go with it.
    """

    run: Callable[[Tensor], Any]
    texts: Mapping[str, str]
    classes: list[str]
    preparation: Preparation
    format: str
    size: int


def open_exported(file: Path, num_threads: int = 0) -> ExportedFile:
    """Open an exported file.

    Args:
        file: of a format that holds the graph.
        num_threads: of its runtime; 0 are as many as it takes. pt2 runs by torch's.

    Raises:
        ConfigError: the file holds weights alone, or was not written by `selfdistill export`.
        ArtifactError: it cannot be read.
    """
    file_format = format_of(file)
    if file_format is None:
        *others, last = graph_endings()
        raise ConfigError(
            f"{file} is neither a run nor an exported network; give a run's directory, a folder of "
            f"selfdistill export, or an {', '.join(others)} or {last} file"
        )
    run, texts = file_format.open(file, num_threads)
    if missing := next((key for key in REQUIRED_TEXTS if key not in texts), None):
        raise ConfigError(
            f"{file} does not tell its {missing}; give a file that this version of selfdistill "
            "export wrote"
        )
    try:
        preparation = Preparation.from_fields(json.loads(texts["preparation"]))
        classes = [str(name) for name in json.loads(texts["classes"])]
    except (ValueError, LookupError, TypeError) as error:
        raise ArtifactError(f"the metadata of {file} cannot be read ({error})") from None
    name = INT8 if texts.get("quantization") == "int8" else file_format.name
    size = file_format.size(file)
    return ExportedFile(run, texts, classes, preparation, name, size)
