"""A network with fewer channels, cut out of another one."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..core import ConfigError
from ..taps import Taps
from ..taps.fx_split import copy_without_hooks, split_at
from ..taps.stage_detection import evaluation_mode

_STEPS = 64  # of the widths that are tried, between nothing and the whole

_SIZES: dict[type[nn.Module], tuple[str, ...]] = {
    _ConvNd: ("in_channels", "out_channels"),
    nn.Linear: ("in_features", "out_features"),
    _BatchNorm: ("num_features",),
    nn.GroupNorm: ("num_channels",),
    nn.LayerNorm: ("normalized_shape",),
    nn.PReLU: ("num_parameters",),
}
"""Layers, and the attributes that count their channels."""


def narrowed(
    network: nn.Module, width: float, example: Tensor, *, from_end: bool = False
) -> nn.Module:
    """A copy whose layers have a fraction of the channels, with the weights of those channels.

    Every number of channels c becomes round(width · c), save that of the images. So it is a
    network only where layers that are joined agree afterwards, and where no layer has its sizes
    written into its code: run it to know. Its last layer has fewer outputs, too.

    Args:
        network: any module; it is not changed.
        width: fraction of the channels that are kept, in (0, 1].
        example: images, by which the layer that reads them is found.
        from_end: whether the last channels of each layer are kept instead of the first.
    """
    return _narrowed(network, width, _first_convolution(network, example), from_end)


def _narrowed(network: nn.Module, width: float, stem: str, from_end: bool) -> nn.Module:
    copy = copy_without_hooks(network)
    for name, module in copy.named_modules():
        _narrow_sizes(module, width, stem=name == stem)
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is not None and tensor.dim():
                    shape = _shape(module, tensor, width)
                    kept = _corner(tensor.detach(), shape, from_end).clone()
                    learns = isinstance(tensor, nn.Parameter)
                    tensors[key] = nn.Parameter(kept, tensor.requires_grad) if learns else kept
    return copy


def widest_chain(
    taps: Taps,
    fraction: float,
    cost: Callable[[list[nn.Module]], float],
    limit: float,
    example: Tensor,
    *,
    from_end: bool = False,
) -> tuple[float, list[nn.Module]]:
    """The widest narrower copy of a network that runs within a limit, as a chain of its stages.

    Args:
        taps: the network.
        fraction: of its cost that the copy is to have, about, where the search begins.
        cost: of a chain, of which module l ends at tap l; it grows with the square of the width,
            and maybe by a constant.
        limit: of the cost.
        example: images.
        from_end: see `narrowed`.

    Returns:
        The width, and the modules of the chain.

    Raises:
        ConfigError: the network cannot be cut at its taps, or no copy runs within the limit.
    """
    split_at(taps.network, taps.names)
    reason, stem = "", _first_convolution(taps.network, example)
    number = min(_STEPS, int(_STEPS * fraction**0.5) + 1)
    while number:
        width = number / _STEPS
        try:
            copy = _narrowed(taps.network, width, stem, from_end)
            parts = split_at(copy, taps.names)[:-1]
            x = example
            for part in parts:
                x = type(part).forward(part, x)  # torch.fx prints what a call of the part raises
        except Exception as error:  # network code may raise anything
            reason = reason or f"that of {width:.2f} fails: {str(error).splitlines()[0]}"
            number -= 1
            continue
        if (excess := cost(parts) / limit) <= 1:
            return width, parts
        number = min(number - 1, int(number / excess**0.5))  # never below the widest that fits
    name = type(taps.network).__name__
    raise ConfigError(
        f"no narrower copy of {name} is both a network and cheap enough"
        f"{f' ({reason})' if reason else ''}; take a network of plain convolutions, a wider one, "
        "or another method"
    )


def scaled(channels: int, width: float) -> int:
    """A fraction of a number of channels, 1 or more."""
    return max(1, round(channels * width))


def _first_convolution(network: nn.Module, example: Tensor) -> str:
    """Name of the first convolution that runs, or ""."""
    names: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda m, x, name=name: names.append(name))
        for name, module in network.named_modules()
        if isinstance(module, _ConvNd)
    ]
    try:
        with evaluation_mode(network):
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return names[0] if names else ""


def _narrow_sizes(module: Any, width: float, stem: bool) -> None:
    attributes = next((names for cls, names in _SIZES.items() if isinstance(module, cls)), ())
    if isinstance(module, _ConvNd) and module.groups == module.in_channels and not stem:
        module.groups = scaled(module.groups, width)
    for attribute in attributes:
        if stem and attribute == "in_channels":
            continue
        size = getattr(module, attribute)
        smaller = tuple(scaled(s, width) for s in size) if isinstance(size, tuple) else None
        setattr(module, attribute, smaller or scaled(size, width))


def _shape(module: nn.Module, tensor: Tensor, width: float) -> list[int]:
    """The shape of a layer's tensor, once the layer's own sizes are those wanted."""
    shape = list(tensor.shape)
    if isinstance(module, _ConvNd) and tensor.dim() > 1:
        ends = [module.out_channels, module.in_channels // module.groups]
        if isinstance(module, _ConvTransposeNd):
            ends = [module.in_channels, module.out_channels // module.groups]
        return [*ends, *shape[2:]]
    if isinstance(module, nn.Linear) and tensor.dim() > 1:
        return [module.out_features, module.in_features]
    if tensor.dim() == 1:
        return [scaled(shape[0], width)]
    return shape


def _corner(tensor: Tensor, shape: list[int], from_end: bool) -> Tensor:
    for axis, size in enumerate(shape):
        start = tensor.shape[axis] - size if from_end else 0
        tensor = tensor.narrow(axis, start, size)
    return tensor
