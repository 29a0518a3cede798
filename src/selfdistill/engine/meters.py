"""Running means of a step's loss terms and monitors, kept on the device."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from ..core import StepOutput
from .processes import process_mean


class AverageMeter:
    """Running means of named 0-d tensors; only reading them synchronizes with the device.

    Sums are fp64 where the device has it, so that a mean does not depend on how often it was saved.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one value for each name."""
        for name, value in values.items():
            if name not in self._sums:
                self._sums[name] = value.new_zeros((), dtype=_sum_dtype(value))
                self._counts[name] = 0
            self._sums[name] += value.detach()
            self._counts[name] += 1

    def means(self) -> dict[str, float]:
        """The mean of each name so far."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values())).tolist()
        return {n: s / self._counts[n] for n, s in zip(self._sums, sums, strict=True)}

    def state(self, fabric: Fabric) -> dict[str, tuple[float, int]]:
        """Mean sums of all processes, and counts; floats survive JSON exactly."""
        sums = process_mean(fabric, {n: float(s) for n, s in self._sums.items()})
        return {n: (s, self._counts[n]) for n, s in sums.items()}

    def restore(self, state: Mapping[str, tuple[float, int]], like: Tensor) -> None:
        """Restore what `state` returned, on the device of `like`."""
        dtype = _sum_dtype(like)
        self._sums = {n: like.new_tensor(s, dtype=dtype) for n, (s, _) in state.items()}
        self._counts = {n: c for n, (_, c) in state.items()}

    def reset(self) -> None:
        """Forget all values."""
        self._sums, self._counts = {}, {}


def _sum_dtype(value: Tensor) -> torch.dtype:
    return torch.float32 if value.device.type == "mps" else torch.float64


class Meters:
    """Means of loss terms and monitors, since the last logged step and since the epoch's start."""

    def __init__(self) -> None:
        self.window = {"losses": AverageMeter(), "monitors": AverageMeter()}
        self.epoch = {"losses": AverageMeter(), "monitors": AverageMeter()}

    def add(self, step: StepOutput) -> None:
        """Count one forward pass."""
        for meters in (self.window, self.epoch):
            meters["losses"].add(step.losses)
            meters["monitors"].add(step.monitors)

    def take_means(self, span: str, fabric: Fabric) -> dict[str, dict[str, float]]:
        """Means over all processes of one span, "window" or "epoch", which starts anew."""
        meters: dict[str, AverageMeter] = getattr(self, span)
        means = {kind: process_mean(fabric, meter.means()) for kind, meter in meters.items()}
        for meter in meters.values():
            meter.reset()
        return means

    def state(self, fabric: Fabric) -> dict[str, Any]:
        """Sums and counts of all meters as plain numbers, the mean of all processes."""
        return {
            span: {kind: meter.state(fabric) for kind, meter in getattr(self, span).items()}
            for span in ("window", "epoch")
        }

    def restore(self, state: dict[str, Any], like: Tensor) -> None:
        """Restore what `state` returned."""
        for span, kinds in state.items():
            for kind, values in kinds.items():
                getattr(self, span)[kind].restore(values, like)
