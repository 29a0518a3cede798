from typing import Any, Literal

from torch import Tensor, nn

from ..core import METHODS, Batch, Method, Progress, Provenance, StepOutput, Task
from ..modules.exits import Exits
from ..taps import Taps


@METHODS.add("byot")
class BeYourOwnTeacher(Method):
    r"""Exits that learn from the labels, the last exit's soft output and its pooled feature.

    Zhang et al. 2019, https://arxiv.org/abs/1905.08094, Eq. 7:

    .. math:: L = (1 - \alpha) \sum_{i \le T} CE(z_i, y) + \alpha \sum_{i<T} KL(z_T \,\|\, z_i)
        + \lambda \sum_{i<T} \lVert f_i - f_T \rVert^2

    Defaults are those of the public port (luanyunteng/pytorch-be-your-own-teacher), whose recipe
    MUSE used for its BYOT rows: the hint is a *sum* over the batch and the pooled features (B, C),
    counted only where one of the two is positive; every supervised loss is scaled by 1 - alpha, the
    last exit's too; the last exit's logits and feature are detached. The port takes τ² times the
    soft cross-entropy, we the KL divergence: same gradient. The authors' own later code has another
    head and another hint (0.03 times an unsquared norm); we follow the port.

    Args:
        student: a network with two taps or more.
        task: what the labels mean.
        alpha: weight of the soft terms, and one minus the weight of the supervised ones; the port's
            0.1.
        hint: weight λ of the feature term; the port's 1e-6, which counts on its being a sum.
        temperature: of the soft loss; 3 in the port.
        bottleneck: exit head, "byot" (the port's) or "slim" (pools first).
    """

    kind = "self"
    provenance = Provenance.CODE

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        alpha: float = 0.1,
        hint: float = 1e-6,
        temperature: float = 3.0,
        bottleneck: Literal["byot", "slim"] = "byot",
    ) -> None:
        super().__init__()
        self.student, self.task, self.hint = student, task, hint
        self.exits = Exits(student, task, bottleneck)
        self.weights = {"supervised": 1 - alpha, "soft": alpha, "temperature": temperature}

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, and `task/i`, `soft/i`, `hint/i` of each exit but the last."""
        out, features = self.student.forward_features(batch.inputs)
        maps, outputs = self.exits(features)
        losses = {"task": self.weights["supervised"] * self.task.loss(out, batch.targets)}
        losses |= self.exits.losses(outputs, out, batch.targets, **self.weights)
        if self.hint:
            last = features[self.student.names[-1]].mean((2, 3)).detach()  # (B, C)
            for i, x in enumerate(maps, 1):
                losses[f"hint/{i}"] = self.hint * masked_square(x.mean((2, 3)), last)
        return StepOutput(out, losses)

    def predictors(self) -> dict[str, nn.Module]:
        """`exit1`, `exit2`, … and `student`."""
        return self.exits.predictors(self.student)

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """All of them in one pass."""
        return self.exits.predict(self.student, inputs)


def masked_square(x: Tensor, target: Tensor) -> Tensor:
    """The sum of squared differences over the entries where one of the two is positive, in fp32."""
    x, target = x.float(), target.float()
    return ((x - target).square() * ((x > 0) | (target > 0))).sum()
