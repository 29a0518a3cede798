"""Images as a teacher takes them: its own channels, normalization and size."""

from collections.abc import Sequence

import torch
from torch import nn

from ..core import ConfigError
from ..data import ImageData
from ..data.image_data import Numbers
from ..functional.channels import channels_convertible, convert_moments
from ..models import TrainedInput, convert_inputs, renormalize_inputs, resize_inputs
from ..taps import example_output
from .build_method import teacher_network
from .network_input import module_channels


def convert_given_teacher(teacher: nn.Module, data: ImageData, size: int | None = None) -> str:
    """Make a module take images of the data's channels; returns what that does, or "".

    Args:
        teacher: the module, or the method that trained it.
        data: the student's.
        size: side to which its images are resized; None leaves them as they are.
    """
    teacher = teacher_network(teacher)
    notes = [_resized(teacher, (size, size), data)] if size else []
    channels = module_channels(teacher, data.train.shape)
    if channels != len(data.mean):
        convert_inputs(teacher, channels)
        notes.append(_conversion(channels))
    return "; ".join(filter(None, notes))


def check_teacher_channels(who: str, channels: int, data: ImageData) -> None:
    """Raises `ConfigError` if images of the data cannot become such of these channels."""
    if not channels_convertible(len(data.mean), channels):
        raise ConfigError(
            f"{who} learned images of {channels} channels, and those of '{data.name}' have "
            f"{len(data.mean)}; train the teacher on images like the student's"
        )


def adapt_teacher_inputs(
    network: nn.Module, own: TrainedInput, data: ImageData, wanted: int | None
) -> tuple[str, tuple[int, ...]]:
    """Bring the images to a teacher's channels, normalization and, if it must be, size.

    Args:
        network: the teacher.
        own: the images that it was trained on.
        data: the student's.
        wanted: side of the images that it is to be shown, None for the data's where it takes them.

    Returns:
        The note on what is done, and the size to warn of where that is not the data's.
    """
    mean, std, size = own
    if wanted:
        shown = (wanted, wanted)
    elif len(size) == 2 and not _takes(network, len(mean), data):
        shown = (size[0], size[1])
    else:
        shown = None
    notes = [_resized(network, shown, data)] if shown else []
    renormalize_inputs(network, (data.mean, data.std), (mean, std))
    notes += [] if len(mean) == len(data.mean) else [_conversion(len(mean))]
    if (mean, std) != data_normalization(data, len(mean)):
        numbers = f"mean {_shown(mean)}, std {_shown(std)}"
        notes.append(f"its images brought to its own normalization, {numbers}")
    return "; ".join(filter(None, notes)), () if shown else size


def _takes(network: nn.Module, channels: int, data: ImageData) -> bool:
    """Whether a network can be shown images of the data's size."""
    try:
        example_output(network, torch.zeros(2, channels, *data.train.shape[1:]))
    except ConfigError:
        return False
    return True


def _resized(network: nn.Module, size: tuple[int, int], data: ImageData) -> str:
    """Resize a teacher's images; returns the note on that, "" where they have this size.

    Raises:
        ConfigError: the images would be distorted, so that places would not be the student's.
    """
    height, width = data.train.shape[-2:]
    if (height, width) == size:
        return ""
    if height * size[1] != width * size[0]:
        raise ConfigError(
            f"the teacher's images of {height}×{width} would be distorted to {size[0]}×{size[1]}; "
            f"give --image-size {min(height, width)}, or another side, which makes them square"
        )
    resize_inputs(network, size)
    return f"its images resized to {size[0]}×{size[1]}"


def data_normalization(data: ImageData, channels: int) -> tuple[Numbers, Numbers]:
    """That of the student, for images of so many channels."""
    return convert_moments(data.mean, channels), convert_moments(data.std, channels)


def _conversion(channels: int) -> str:
    return "its images converted to gray" if channels == 1 else "its images repeated in 3 channels"


def _shown(numbers: Sequence[float]) -> str:
    return " ".join(f"{x:.3f}" for x in numbers)
