"""Parameters and multiply-adds as MUSE's Table 3 counts them; `cost` counts what really runs."""

from torch import Tensor, nn

from ..core import ConfigError, nearest
from .macs import NetworkCost


def paper_network_cost(
    network: nn.Module, example: Tensor, until: str | None = None
) -> NetworkCost:
    """Count a network's convolutions one after the other, as if each fed the next.

    MUSE, https://arxiv.org/abs/2110.12606, Table 3, says not how it counts; this rule gives all its
    digits. Only `nn.Conv2d` counts: no linear layer, no norm, no head of an exit. The modules are
    walked in the order in which they were made, and the maps' size is the image's divided by every
    stride on the way, though never less than a pixel. So pools shrink nothing, and the convolution
    in a strided shortcut, which runs beside the block's, shrinks the maps once more.

    Args:
        network: whole; it is not run, and may lie on the meta device.
        example: an input, (B, C, H, W).
        until: the tap at which an exit hangs; None counts all.

    Raises:
        ConfigError: the network has no such module.
    """
    modules = dict(network.named_modules())
    if until is not None and until not in modules:
        raise ConfigError(
            f"{type(network).__name__} has no module '{until}'{nearest(until, modules)}"
        )
    height, width = (float(side) for side in example.shape[-2:])
    parameters, macs = 0, 0.0
    reached = False
    for name, module in modules.items():
        inside = until is not None and f"{name}.".startswith(f"{until}.")
        if reached and not inside:
            break
        reached = inside
        if isinstance(module, nn.Conv2d):
            height, width = height / module.stride[0], width / module.stride[1]
            parameters += sum(p.numel() for p in module.parameters())
            macs += module.weight.numel() * height * width
            height, width = max(height, 1.0), max(width, 1.0)
    return NetworkCost(parameters, round(macs))
