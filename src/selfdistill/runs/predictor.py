"""A trained network that takes pictures: a predictor of a run, or an exported file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core import STUDENT, ArtifactError, ConfigError
from ..data import ImageData, InMemoryImages
from ..data.augment import normalize
from ..data.clips import InMemoryClips
from ..data.preparation import Preparation, preparation_of
from ..engine.evaluate import predictor_outputs
from ..export.onnx_export import onnx_session, session_runner
from ..export.package import FILES
from ..export.select_exit import predictor_name, select_exit
from ..export.torch_export import load_pt2
from ..export.verify import file_outputs
from ..records.training_data import TrainingData
from ..tasks import task_family

if TYPE_CHECKING:
    from .run import Run

_Opened = tuple[Callable[[Tensor], Any], Mapping[str, str]]
_METADATA = ("classes", "task", "preparation", "predictor")
_COSTS = ("parameters", "macs")  # which the first exports did not tell


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
        name = select_exit(run.exits, "auto").predictor
    else:
        name = predictor_name(str(exit), list(run.method.predictors()))

    def outputs(images: Tensor) -> Any:
        inputs = normalize(images, data.mean, data.std)
        return predictor_outputs(session.fabric, session.method, name, inputs)

    return Predictor(name, task_family(data.task), data.classes, preparation_of(data), outputs)


def data_without_images(trained_on: TrainingData) -> ImageData:
    """The description of a run's data in the form of data, so that a run loads without them.

    Raises:
        ArtifactError: the run does not say how pictures are prepared.
    """
    preparation = trained_on.preparation
    if preparation is None:
        raise ArtifactError("data.json does not say how pictures are prepared; train the run anew")
    num_images = trained_on.parts["train"].images
    black = torch.zeros(1, dtype=torch.uint8).expand(num_images, *preparation.shape)
    labels = torch.arange(num_images) % len(trained_on.classes)
    images = InMemoryImages(black, labels)
    if clip := preparation.clip:
        frame, lengths = black[:, :, 0], torch.ones(num_images, dtype=torch.int64)
        images = InMemoryClips(frame, lengths, labels, clip)
    return ImageData(
        trained_on.name,
        images,
        None,
        None,
        list(trained_on.classes),
        trained_on.mean,
        trained_on.std,
        crop_padding=0,
        flip=False,
        resized_crop=False,
        task=trained_on.task,
        fit=preparation.fit,
        resize_ratio=preparation.resize_ratio,
        normalization=trained_on.normalization,
        own_moments=trained_on.own_moments,
    )


def exported_file(path: Path) -> Path | None:
    """The network's file in a folder that `selfdistill export` wrote, or None."""
    files = (path / name for name in FILES.values())
    return next((file for file in files if file.is_file()), None)


def predictor_of_file(file: Path) -> Predictor:
    """The predictor in an ONNX or pt2 file that `selfdistill export` wrote, on the CPU.

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
    """An ONNX or pt2 file that `selfdistill export` wrote, on the CPU.

    Attributes:
        run: from images or clips float32 in 0 … 1 to the tensors that the file returns.
        texts: that the file holds, by name.
        classes: their names.
        preparation: of a picture.
    """

    run: Callable[[Tensor], Any]
    texts: Mapping[str, str]
    classes: list[str]
    preparation: Preparation


def open_exported(file: Path, num_threads: int = 0) -> ExportedFile:
    """Open an exported file.

    Args:
        file: ONNX or pt2.
        num_threads: of onnxruntime; 0 are as many as it takes. pt2 runs by torch's.

    Raises:
        ConfigError: the file holds weights alone, or was not written by `selfdistill export`.
        ArtifactError: it cannot be read.
    """
    readers: dict[str, Callable[[Path], _Opened]] = {
        ".onnx": partial(_read_onnx, num_threads=num_threads),
        ".pt2": _read_pt2,
    }
    if file.suffix == ".safetensors":
        raise ConfigError(
            f"{file} holds weights and no network; give the run that it was exported from, or "
            "export it as onnx or pt2"
        )
    if file.suffix not in readers:
        raise ConfigError(
            f"{file} is neither a run nor an exported network; give a run's directory, a folder of "
            "selfdistill export, or an .onnx or .pt2 file"
        )
    run, metadata = readers[file.suffix](file)
    if missing := next((key for key in _METADATA if key not in metadata), None):
        raise ConfigError(
            f"{file} does not tell its {missing}; give a file that this version of selfdistill "
            "export wrote"
        )
    try:
        preparation = Preparation.from_fields(json.loads(metadata["preparation"]))
        classes = [str(name) for name in json.loads(metadata["classes"])]
    except (ValueError, LookupError, TypeError) as error:
        raise ArtifactError(f"the metadata of {file} cannot be read ({error})") from None
    return ExportedFile(run, metadata, classes, preparation)


def _read_onnx(file: Path, num_threads: int) -> _Opened:
    try:
        session = onnx_session(file, num_threads)
    except ConfigError:  # the extra is not installed
        raise
    except Exception as error:  # onnxruntime has a class of its own for every kind of damage
        raise ArtifactError(f"{file} cannot be read as ONNX ({_first_line(error)})") from None
    return session_runner(session), session.get_modelmeta().custom_metadata_map


def _read_pt2(file: Path) -> _Opened:
    metadata = dict.fromkeys((*_METADATA, *_COSTS), "")
    try:
        network = load_pt2(file, metadata)
    except Exception as error:  # zip, json and torch have classes of their own
        raise ArtifactError(f"{file} cannot be read as pt2 ({_first_line(error)})") from None
    return network, {key: text for key, text in metadata.items() if text}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
