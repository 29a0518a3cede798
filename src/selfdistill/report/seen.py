"""What the student makes of a few images: the files in `pictures/`, and their section."""

import base64
import io
from html import escape
from pathlib import Path

import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

from ..core import ArtifactError, Method, ResourceError, Task
from ..data import ImageData, ImageSet
from ..data.augment import normalize
from ..engine.evaluate import student_outputs
from ..engine.run_directory import RunDirectory
from ..tasks.colors import colors
from .contents import PICTURES, Contents
from .layout import note, section

_SHOWN = 8
_LEAST = 400  # pixels that a picture is wide, truth and answer together
_MOST = 1100  # pixels of a picture on the page
_QUALITY = 88


def write_pictures(
    run: RunDirectory, fabric: Fabric, method: Method, task: Task, images: ImageSet, data: ImageData
) -> None:
    """Draw truth and answer into a few images, evenly spread, if the task has pictures.

    Args:
        run: where `pictures/NUMBER.png` is written, NUMBER being the image's place among `images`.
        fabric, method, task: who answers, on which device.
        images: of the test or validation part.
        data: whose normalization the network was trained with.

    Raises:
        ResourceError: a picture cannot be written.
    """
    places = torch.linspace(0, len(images) - 1, min(_SHOWN, len(images))).round().long()
    pixels, targets = images.fetch(places), images.targets.fetch(places)
    said = student_outputs(fabric, method, normalize(pixels, data.mean, data.std))
    color = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    drawn = task.visualize(color.to(fabric.device), targets.to(fabric.device), said)
    folder = run.path / PICTURES
    for old in folder.glob("*.png"):  # of this run, before it was resumed
        old.unlink()
    if not drawn:
        return
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder} could not be made: {error.strerror or error}") from error
    for place, picture in zip(places.tolist(), drawn, strict=True):
        run.write(f"{PICTURES}/{place:03}.png", _png(picture))


def _png(picture: Tensor) -> bytes:
    """(3, H, W) uint8 as a file; a small one is enlarged by a whole number."""
    times = max(1, -(-_LEAST // picture.shape[-1]))
    large = picture.repeat_interleave(times, 1).repeat_interleave(times, 2)
    stream = io.BytesIO()
    Image.fromarray(large.permute(1, 2, 0).cpu().numpy()).save(stream, "PNG")
    return stream.getvalue()


def seen(contents: Contents) -> str:
    """The pictures, inside of the page."""
    if not contents.pictures:
        return ""
    split = contents.split
    said = f"Some of the {split} images, evenly spread: on the left the truth, on the right the "
    said += "full network's answer."
    shown = "".join(
        f'<img src="data:image/jpeg;base64,{_jpeg(path)}" '
        f'alt="{escape(split)} image {escape(path.stem)}: truth and answer" loading="lazy">'
        for path in contents.pictures[:_SHOWN]
    )
    body = f'<div class="seen">{shown}</div>'
    return section("What the network sees", note(said), _legend(contents), body)


def _legend(contents: Contents) -> str:
    """The classes in their colors; boxes are never gray, which is no color to be seen by."""
    first = 0 if contents.task.dense_scores else 1
    shades = colors(len(contents.classes) + first)[first:]
    names = zip(shades, contents.classes, strict=True)
    items = "".join(
        f'<li><i class="swatch square" style="background:rgb{color}"></i>{escape(name)}</li>'
        for color, name in names
    )
    return f'<ul class="legend">{items}</ul>'


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
