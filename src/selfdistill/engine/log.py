"""Averages of what a step reports, kept on the device, and where they are shown."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core import StepOutput


class Meter:
    """Running means of named 0-d tensors; reading them is the only time the host waits.

    Sums are fp64 where the device has it, so that a mean does not depend on how often it was saved.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one value of each name."""
        for name, value in values.items():
            if name not in self._sums:
                wide = torch.float32 if value.device.type == "mps" else torch.float64
                self._sums[name], self._counts[name] = value.new_zeros((), dtype=wide), 0
            self._sums[name] += value.detach()
            self._counts[name] += 1

    def means(self) -> dict[str, float]:
        """The mean of each name so far."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values())).tolist()
        return {n: s / self._counts[n] for n, s in zip(self._sums, sums, strict=True)}

    def state(self) -> dict[str, tuple[float, int]]:
        """Sums and counts as plain numbers; floats survive JSON exactly."""
        return {n: (float(s), self._counts[n]) for n, s in self._sums.items()}

    def restore(self, state: Mapping[str, tuple[float, int]], like: Tensor) -> None:
        """Go on from what `state` gave, on the device of `like`."""
        wide = torch.float32 if like.device.type == "mps" else torch.float64
        self._sums = {n: like.new_tensor(s, dtype=wide) for n, (s, _) in state.items()}
        self._counts = {n: c for n, (_, c) in state.items()}

    def reset(self) -> None:
        """Start anew."""
        self._sums, self._counts = {}, {}


class Meters:
    """The meters of loss terms and of monitors, since the last line and since the epoch began."""

    def __init__(self) -> None:
        self.window = {"losses": Meter(), "monitors": Meter()}
        self.epoch = {"losses": Meter(), "monitors": Meter()}

    def add(self, step: StepOutput) -> None:
        """Count one step."""
        for meters in (self.window, self.epoch):
            meters["losses"].add(step.losses)
            meters["monitors"].add(step.monitors)

    def state(self) -> dict[str, Any]:
        """All of them as plain numbers."""
        return {
            span: {kind: meter.state() for kind, meter in getattr(self, span).items()}
            for span in ("window", "epoch")
        }

    def restore(self, state: dict[str, Any], like: Tensor) -> None:
        """Go on from what `state` gave."""
        for span, kinds in state.items():
            for kind, values in kinds.items():
                getattr(self, span)[kind].restore(values, like)


class Callback(Protocol):
    """What shows a run to a person; `cli/` has one for terminals, tests have none."""

    def begin(self, facts: dict[str, str]) -> None:
        """What is about to be trained: method, network, data, device and run directory."""

    def step(self, entry: dict[str, Any], total: int) -> None:
        """A line of metrics.jsonl of kind "step"."""

    def advance(self, step: int, total: int) -> None:
        """One more optimizer step is done."""

    def epoch(self, entry: dict[str, Any]) -> None:
        """A line of metrics.jsonl of kind "epoch"."""

    def say(self, sentence: str) -> None:
        """A warning or a piece of news."""


class NullCallback:
    """Shows nothing."""

    def begin(self, facts: dict[str, str]) -> None:
        """Nothing."""

    def step(self, entry: dict[str, Any], total: int) -> None:
        """Nothing."""

    def advance(self, step: int, total: int) -> None:
        """Nothing."""

    def epoch(self, entry: dict[str, Any]) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""
