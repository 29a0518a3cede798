"""A few images with their labels and the student's predictions: the files in `pictures/`."""

import base64
import io
from pathlib import Path

import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

from ..core import STUDENT, ArtifactError, Method, ResourceError, Task
from ..data import ImageData, ImageSet
from ..data.augment import normalize
from ..engine.evaluate import predictor_outputs
from ..engine.run_directory import RunDirectory
from ..tasks.colors import colors
from .run_data import PICTURES, RunData

_SHOWN = 8
_LEAST = 400  # pixels that a picture is wide, labels and prediction together
_MOST = 1100  # pixels of a picture on the page
_QUALITY = 88


def write_pictures(
    run: RunDirectory, fabric: Fabric, method: Method, task: Task, images: ImageSet, data: ImageData
) -> None:
    """Draw labels and predictions into a few images, evenly spread, if the task can.

    Args:
        run: gets `pictures/NUMBER.png`, NUMBER being the index of the image among `images`.
        fabric, method, task: a trained student and its device.
        images: of the test or validation part.
        data: whose normalization the network was trained with.

    Raises:
        ResourceError: a picture cannot be written.
    """
    indices = torch.linspace(0, len(images) - 1, min(_SHOWN, len(images))).round().long()
    pixels, targets = images.fetch(indices), images.targets.fetch(indices)
    inputs = normalize(pixels, data.mean, data.std)
    outputs = predictor_outputs(fabric, method, STUDENT, inputs)
    color = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    drawn = task.visualize(color.to(fabric.device), targets.to(fabric.device), outputs)
    folder = run.path / PICTURES
    for old in folder.glob("*.png"):  # of this run, before it was resumed
        old.unlink()
    if not drawn:
        return
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder} could not be made: {error.strerror or error}") from error
    for index, picture in zip(indices.tolist(), drawn, strict=True):
        run.write(f"{PICTURES}/{index:03}.png", _png(picture))


def _png(picture: Tensor) -> bytes:
    """(3, H, W) uint8 as a file; a small one is enlarged by a whole number."""
    times = max(1, -(-_LEAST // picture.shape[-1]))
    large = picture.repeat_interleave(times, 1).repeat_interleave(times, 2)
    stream = io.BytesIO()
    Image.fromarray(large.permute(1, 2, 0).cpu().numpy()).save(stream, "PNG")
    return stream.getvalue()


def embedded_pictures(run: RunData) -> dict[str, str]:
    """The pictures of a run by the number of their image, as JPEG in base64.

    Raises:
        ArtifactError: a picture cannot be read.
    """
    return {path.stem: _jpeg(path) for path in run.pictures[:_SHOWN]}


def legend(run: RunData) -> list[tuple[str, str]]:
    """(color in CSS, class); boxes are never gray, which would not stand out."""
    first = 0 if run.task.dense_scores else 1
    shades = colors(len(run.classes) + first)[first:]
    return [(f"rgb{shade}", name) for shade, name in zip(shades, run.classes, strict=True)]


def _jpeg(path: Path) -> str:
    """A picture for the page, no wider than it can be shown, as base64."""
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ArtifactError(f"{path} is no picture ({error})") from None
    small.thumbnail((_MOST, _MOST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY, subsampling=0)  # colors keep their edges
    return base64.b64encode(stream.getvalue()).decode("ascii")
