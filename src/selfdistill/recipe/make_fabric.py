"""Devices, precision and processes of a run."""

import warnings
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from ..core import ConfigError, ResourceError
from ..engine.quiet_lightning import quiet_lightning
from .launched_processes import cluster_environment
from .machine_choices import device_type, precision_of
from .schema import Recipe


def make_fabric(recipe: Recipe) -> Fabric:
    """Devices, precision and processes.

    Raises:
        ConfigError: a precision that the device does not have.
        ResourceError: the device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(recipe.device, True):
        raise ResourceError(f"this machine shows torch no {recipe.device} device; try --device cpu")
    accelerator = device_type(recipe)
    if recipe.precision == "fp16" and accelerator == "cpu":
        raise ConfigError("fp16 needs a GPU; --precision bf16 works on the CPU")
    precision = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision_of(recipe)]
    strategy: Any = "auto"
    if recipe.devices * recipe.num_nodes > 1:
        # Buffers hold per-sample memories in some methods: a broadcast would overwrite them.
        # A network may have parameters that take no part in the loss; torch would stop at them.
        strategy = DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)
        warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
        # of 1×1 convolutions, whose gradients fit both memory formats
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    with quiet_lightning():
        environment = cluster_environment(recipe)
        return Fabric(
            accelerator=accelerator,
            devices=recipe.devices,
            num_nodes=recipe.num_nodes,
            precision=precision,  # type: ignore[arg-type]
            strategy=strategy,
            plugins=[environment] if environment else None,
        )
