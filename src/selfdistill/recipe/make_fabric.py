"""Devices, precision and processes of a run."""

import warnings
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy

from ..core import ConfigError, ResourceError
from ..engine.quiet_lightning import quiet_lightning
from .launched_processes import cluster_environment
from .machine_choices import device_type, precision_of
from .schema import Recipe


class UndecidedPrecision(Precision):
    """bf16 on a CPU, which gives way to fp32 when the network turns out to need it.

    A fabric launches the processes of a run, so that it comes before the network.
    """

    def __init__(self) -> None:
        self.decided: Precision = MixedPrecision("bf16-mixed", "cpu")

    def forward_context(self) -> AbstractContextManager[Any]:
        """Autocast, unless fp32 is decided."""
        return self.decided.forward_context()

    def convert_input(self, data: Any) -> Any:
        """Tensors of images in the type of the decided precision."""
        return self.decided.convert_input(data)

    def convert_output(self, data: Any) -> Any:
        """Outputs in fp32."""
        return self.decided.convert_output(data)


def decide_precision(fabric: Fabric, recipe: Recipe) -> None:
    """Give a fabric the precision that the recipe of a network that is built has."""
    precision = fabric.strategy.precision
    if isinstance(precision, UndecidedPrecision) and recipe.precision == "fp32":
        precision.decided = Precision()


def make_fabric(recipe: Recipe) -> Fabric:
    """Devices, precision and processes; `decide_precision` is for when the network is there.

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
    undecided = recipe.precision == "auto" and accelerator == "cpu" and precision == "bf16-mixed"
    strategy: Any = "auto"
    if recipe.devices * recipe.num_nodes > 1:
        # Buffers hold per-sample memories in some methods: a broadcast would overwrite them.
        # A network may have parameters that take no part in the loss; torch would stop at them.
        strategy = DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)
        warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
        # of 1×1 convolutions, whose gradients fit both memory formats
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    with quiet_lightning():
        plugins = [cluster_environment(recipe), UndecidedPrecision() if undecided else None]
        return Fabric(
            accelerator=accelerator,
            devices=recipe.devices,
            num_nodes=recipe.num_nodes,
            precision=None if undecided else precision,  # type: ignore[arg-type]
            strategy=strategy,
            plugins=[plugin for plugin in plugins if plugin is not None],
        )
