"""Parameters and multiply-adds by the rule of MUSE's Table 3; see `macs` for the actual cost."""

from torch import Tensor, nn

from ..core import ConfigError, nearest
from .macs import NetworkCost


def paper_network_cost(
    network: nn.Module, example: Tensor, until: str | None = None
) -> NetworkCost:
    """Cost of a network's convolutions, counted as if they were one chain.

    MUSE, https://arxiv.org/abs/2110.12606, Table 3, does not say how it counts; this rule
    reproduces all its digits. Only `nn.Conv2d` counts: no linear layer, no norm, no exit head. The
    modules are visited in the order of their creation, and the feature size is the image's divided
    by every stride so far, but at least one pixel. So pools do not reduce it, and the convolution
    of a strided shortcut, parallel to the block's, reduces it once more.

    Args:
        network: the full network; it is not run, and may be on the meta device.
        example: an input, (B, C, H, W).
        until: the tap of an exit; None counts all.

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
    at_tap = False
    for name, module in modules.items():
        inside = until is not None and f"{name}.".startswith(f"{until}.")
        if at_tap and not inside:
            break
        at_tap = inside
        if isinstance(module, nn.Conv2d):
            height, width = height / module.stride[0], width / module.stride[1]
            parameters += sum(p.numel() for p in module.parameters())
            macs += module.weight.numel() * height * width
            height, width = max(height, 1.0), max(width, 1.0)
    return NetworkCost(parameters, round(macs))
