"""A network's own normalization, channels and size, for images that come with others."""

from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..functional.channels import convert_channels

Normalization = tuple[tuple[float, ...], tuple[float, ...]]

fx.wrap("_scaled")  # else a network with these hooks could not be traced, and so not split
fx.wrap("_in_channels")
fx.wrap("_in_size")


class TrainedInput(NamedTuple):
    """Images that a network was trained on.

    Attributes:
        mean, std: of their pixels in [0, 1], one number a channel.
        size: their height and width; () where nobody knows.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, ...] = ()


def renormalize_inputs(network: nn.Module, given: Normalization, own: Normalization) -> None:
    """Make a network take images of another normalization than its own, (mean, std) of channels.

    A hook brings the images to its own one, and to its channels. Names of modules and the state
    dict stay as they are.
    """
    (mean, std), (own_mean, own_std) = (map(torch.tensor, pair) for pair in (given, own))
    if torch.equal(mean, own_mean) and torch.equal(std, own_std):
        return
    scale, offset = std / own_std, (mean - own_mean) / own_std  # of the more channels of the two
    for name, values in (("input_scale", scale), ("input_offset", offset)):
        network.register_buffer(name, values, persistent=False)
    network.register_forward_pre_hook(partial(_renormalized, channels=len(own_mean)))


def convert_inputs(network: nn.Module, channels: int) -> None:
    """Make a network take images of other channels than its own, whatever their normalization."""
    network.register_forward_pre_hook(partial(_converted, channels=channels))


def resize_inputs(network: nn.Module, size: tuple[int, int]) -> None:
    """Make a network take images of any height and width, which a hook resizes to its own."""
    network.register_forward_pre_hook(partial(_resized, size=size))


def _resized(network: nn.Module, args: tuple[Any, ...], size: tuple[int, int]) -> tuple[Any, ...]:
    images, *others = args
    return (_in_size(images, size), *others)


def _renormalized(network: nn.Module, args: tuple[Any, ...], channels: int) -> tuple[Any, ...]:
    images, *others = args
    parts: Any = network
    images = _scaled(images, parts.input_scale, parts.input_offset)
    return (_in_channels(images, channels), *others)  # linear, so before or after is the same


def _converted(network: nn.Module, args: tuple[Any, ...], channels: int) -> tuple[Any, ...]:
    images, *others = args
    return (_in_channels(images, channels), *others)


def _scaled(images: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Scale and offset (C,) of images (B, C, H, W) or clips (B, C, T, H, W)."""
    channels = (-1, *[1] * (images.dim() - 2))
    return images * scale.view(channels) + offset.view(channels)


def _in_channels(images: Tensor, channels: int) -> Tensor:
    if images.dim() == 4:
        return convert_channels(images, channels)
    return convert_channels(images.transpose(1, 2), channels).transpose(1, 2)  # frame by frame


def _in_size(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W), or clips (B, C, T, H, W), resized as the data sets' images are."""
    frames = images.flatten(1, -3).float()  # no CPU resizes bf16
    resized = F.interpolate(frames, size=size, mode="bilinear", antialias=True)
    return resized.to(images.dtype).unflatten(1, images.shape[1:-2])  # type: ignore[no-any-return,no-untyped-call]
