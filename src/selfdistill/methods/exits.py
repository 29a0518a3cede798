from typing import Any, Literal

from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Evidence, Method, Progress, Step, Task
from ..modules.exits import Exits
from ..taps import Taps


@METHODS.add("exits")
class SupervisedExits(Method):
    r"""Exits that learn from the labels and from the last exit's soft output, and nothing else.

    The rows "CE" and "CE + KD" of MUSE (Gong et al. 2021, https://arxiv.org/abs/2110.12606), Table
    5: its frame without any feature term, and so the baseline of every feature term.

    .. math:: L = L_{task}(z_T) + \sum_{i<T} \left[ a L_{task}(z_i) + b L_{soft}(z_i, sg\, z_T)
    \right]

    Args:
        student: a network with two taps or more.
        task: what the labels mean.
        supervised: weight a of an exit's supervised loss. The paper gives none; as in MUSE's file
            here.
        soft: weight b of an exit's soft loss; 0 gives the row "CE".
        temperature: of the soft loss; 3 as in BYOT's code.
        bottleneck: exit head, "slim" (pools first) or "byot" (the BYOT port's).
    """

    kind = "self"
    evidence = Evidence.PAPER

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        supervised: float = 0.7,
        soft: float = 0.3,
        temperature: float = 3.0,
        bottleneck: Literal["slim", "byot"] = "slim",
    ) -> None:
        super().__init__()
        if not (supervised or soft):
            raise ConfigError("exits need a loss: give supervised or soft a weight")
        self.student, self.task = student, task
        self.exits = Exits(student, task, bottleneck)
        self.weights = {"supervised": supervised, "soft": soft, "temperature": temperature}

    def forward(self, batch: Batch, now: Progress) -> Step:
        """`task` of the last exit, `task/i` and `soft/i` of the others."""
        out, features = self.student.tapped(batch.inputs)
        _, outputs = self.exits(features)
        losses = {"task": self.task.loss(out, batch.targets)}
        losses |= self.exits.losses(outputs, out, batch.targets, **self.weights)
        return Step(out, losses)

    def predictors(self) -> dict[str, nn.Module]:
        """`exit1`, `exit2`, … and `student`."""
        return self.exits.predictors(self.student)

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """All of them in one pass."""
        return self.exits.predict(self.student, inputs)
