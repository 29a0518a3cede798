"""The one contract between training and everything that can be trained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from .batch import Batch, Needs, Progress, Step


class Method(nn.Module, ABC):
    """A way to train a student: one module that owns all that is trained.

    A subclass lives in one file of `methods/`, registers itself with `METHODS.add(NAME)` and must
    write `forward`. Its constructor is its interface: positional parameters are what it is given
    (`student`, `task`, …), keyword-only ones are what a user may tune; command line, recipes and
    documentation are read from that signature.
    """

    needs: ClassVar[Needs] = Needs()

    @abstractmethod
    def forward(self, batch: Batch, now: Progress) -> Step:
        """Outputs, weighted loss terms and monitors of one batch."""

    @abstractmethod
    def predictors(self) -> dict[str, nn.Module]:
        """The networks that this method leaves behind, shallowest first, `student` last."""

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """Output of every predictor; override where one pass can serve them all."""
        return {name: network(inputs) for name, network in self.predictors().items()}

    def after_step(self, now: Progress) -> None:
        """Runs after each optimiser step: moving-average teachers, memories, snapshots."""

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser; a group may carry `lr_scale` or `weight_decay`."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """{monitor: what is wrong with it}, judged from the monitors' means over an epoch."""
        return {}
