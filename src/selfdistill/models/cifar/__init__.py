"""Networks for 32×32 images: each file of this folder is a family and lists its `NETWORKS`."""

import importlib
import pkgutil
from collections.abc import Callable

from torch import nn

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    name: network
    for family in pkgutil.iter_modules(__path__)
    for name, network in importlib.import_module(f"{__name__}.{family.name}").NETWORKS.items()
}
"""Constructors by name; each takes `num_classes` and `in_channels` and makes a network with `cuts`.

`cuts` are the names of the four submodules whose outputs are the features of the network's four
modules, shallowest first; the last one is what the classifier pools. Where those are not the ends
of its stages, `stage_ends` names these: the taps of the CRD benchmark, where that has the network.
"""

__all__ = ["NETWORKS"]
