"""A few images with their labels and the student's predictions: the files in `pictures/`."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

from ..core import STUDENT, ArtifactError, Method, ResourceError, Task
from ..data import ImageData, ImageSet
from ..data.augment import normalize
from ..engine.evaluate import EvaluationResult, predictor_outputs
from ..engine.run_directory import RunDirectory
from ..records.mistakes import FILE, Mistake, to_csv
from ..tasks.colors import colors
from .run_data import PICTURES, RunData

_SHOWN = 8
_MISTAKES = 12
_FRAMES = 4  # of a clip that are shown
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
    color = _in_color(pixels)
    drawn = task.visualize(color.to(fabric.device), targets.to(fabric.device), outputs)
    _write(run, dict(zip(indices.tolist(), drawn, strict=False)))


def write_mistakes(
    run: RunDirectory, result: EvaluationResult, images: ImageSet, classes: Sequence[str]
) -> None:
    """Write the images that a classifier gets wrong, the surest first, and their table.

    Args:
        run: gets `pictures/NUMBER.png` and `mistakes.csv`.
        result: of the student on these images.
        images: of the test or validation part.
        classes: their names.

    Raises:
        ResourceError: a file cannot be written.
    """
    wrong = (result.predicted != images.labels.cpu()).nonzero().flatten()
    order = result.confidence[wrong].argsort(descending=True, stable=True)
    wrong = wrong[order][:_MISTAKES]
    labels = images.labels[wrong].tolist()
    columns = (column[wrong].tolist() for column in (result.predicted, result.confidence))
    mistakes = [
        Mistake(image, classes[label], classes[prediction], round(confidence, 4))
        for image, label, prediction, confidence in zip(
            wrong.tolist(), labels, *columns, strict=True
        )
    ]
    run.write(FILE, to_csv(mistakes))
    pixels = _in_color(_film(images.fetch(wrong))) if len(wrong) else ()
    _write(run, dict(zip(wrong.tolist(), pixels, strict=True)))


def _film(pixels: Tensor) -> Tensor:
    """Clips (B, C, T, H, W) as a few frames side by side, (B, C, H, n·W); images as they are."""
    if pixels.dim() == 4:
        return pixels
    times = pixels.shape[2]
    shown = torch.linspace(0, times - 1, min(_FRAMES, times)).round().long()
    return pixels[:, :, shown].movedim(2, 3).flatten(3)


def _in_color(pixels: Tensor) -> Tensor:
    """(B, C, H, W) as (B, 3, H, W)."""
    return pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)


def _write(run: RunDirectory, pictures: Mapping[int, Tensor]) -> None:
    """Write pictures (3, H, W) by the numbers of their images, in place of all older ones."""
    folder = run.path / PICTURES
    for old in folder.glob("*.png"):  # of this run, before it was resumed
        old.unlink()
    if not pictures:
        return
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder} could not be made: {error.strerror or error}") from error
    for index, picture in pictures.items():
        run.write(f"{PICTURES}/{index:03}.png", _png(picture))


def _png(picture: Tensor) -> bytes:
    """(3, H, W) uint8 as a file; a small one is enlarged by a whole number."""
    times = max(1, -(-_LEAST // picture.shape[-1]))
    large = picture.repeat_interleave(times, 1).repeat_interleave(times, 2)
    stream = io.BytesIO()
    Image.fromarray(large.permute(1, 2, 0).cpu().numpy()).save(stream, "PNG")
    return stream.getvalue()


def embedded_pictures(run: RunData) -> dict[str, str]:
    """The drawings of a run by the number of their image, as JPEG in base64.

    Raises:
        ArtifactError: a picture cannot be read.
    """
    if run.task.image_labels:
        return {}
    return {path.stem: _jpeg(path) for path in run.pictures[:_SHOWN]}


def embedded_mistakes(run: RunData) -> list[tuple[Mistake, str]]:
    """The mistakes of a classifier whose pictures are there, with these as JPEG in base64.

    Raises:
        ArtifactError: a picture cannot be read.
    """
    files = {path.stem: path for path in run.pictures}
    named = [(mistake, f"{mistake.image:03}") for mistake in run.mistakes]
    return [(mistake, _jpeg(files[stem], _MOST // 4)) for mistake, stem in named if stem in files]


def legend(run: RunData) -> list[tuple[str, str]]:
    """(color in CSS, class); boxes are never gray, which would not stand out."""
    first = 0 if run.task.dense_scores else 1
    shades = colors(len(run.classes) + first)[first:]
    numbers = all(name.isdecimal() for name in run.classes)  # data that name no class
    names = [f"class {name}" for name in run.classes] if numbers else run.classes
    return [(f"rgb{shade}", name) for shade, name in zip(shades, names, strict=True)]


def _jpeg(path: Path, most: int = _MOST) -> str:
    """A picture for the page, no wider than it can be shown, as base64."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            small = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ArtifactError(f"{path} is no picture ({error})") from None
    small.thumbnail((most, most), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY, subsampling=0)  # colors keep their edges
    return base64.b64encode(stream.getvalue()).decode("ascii")
