from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Method, Progress, Provenance, StepOutput, Task
from ..functional.attention import pooled_to
from ..functional.gradient_routing import call_with_frozen_parameters
from ..functional.kernel import channel_discrepancy
from ..modules.discriminators import Discriminator
from ..modules.exits import Exits
from ..modules.variational import VariationalGaussian
from ..taps import Taps


class _Defaults(NamedTuple):
    weight: float
    detach_last: bool


DISCREPANCIES = {
    "l2": _Defaults(0.05, False),
    "mmd": _Defaults(50.0, False),
    "adversarial": _Defaults(0.1, False),
    "vid": _Defaults(1.0, True),
}
"""What a discrepancy takes where the user does not say."""


@METHODS.add("exits")
class SupervisedExits(Method):
    r"""Exits that learn from the labels, the last exit's soft output and, if wanted, its feature.

    The rows "CE" and "CE + KD" of MUSE (Gong et al. 2021, https://arxiv.org/abs/2110.12606), Table
    5: its frame without any feature term, and so the baseline of every feature term. With a
    discrepancy d these are the rows "L2" of Table 5 and, at b = 0, those of Table 6.

    .. math:: L = L_{task}(z_T) + \sum_{i<T} \left[ a L_{task}(z_i) + b L_{soft}(z_i, sg\, z_T)
        + w \, d(\tilde F_i, F_T) \right]

    The discrepancies compare the map behind bottleneck i with the last feature, the larger of the
    two pooled to the size of the smaller:

    - "l2": the mean of squares over the maps (BYOT sums them over pooled vectors, see `byot`).
    - "mmd": neuron selectivity transfer (https://arxiv.org/abs/1707.01219) with its polynomial
      kernel: channels are compared by where they respond.
    - "adversarial": a discriminator tells pooled maps of exit and last feature apart, with least
      squares; each side learns to be taken for the other. `discriminator/i` trains nothing but the
      discriminator and `adversarial/i` everything but it, both in one step.
    - "vid": the variational bound of https://arxiv.org/abs/1904.05835, I(F_T; exit's map) under a
      learned Gaussian.

    MUSE lets both sides learn, and so do we but for "vid", whose bound holds for a target that
    stands still. The paper gives neither weights nor kernel nor discriminator for Table 6, so which
    we took is our choice: squares at 0.05 as the public Self-KD-Lib has them in its BYOT, and the
    weights that the CRD benchmark has for NST (50, which makes an exit's term about 1 on an
    untrained ResNet-18) and VID (1). The discriminator and its 0.1 are chosen here.

    Args:
        student: a network with two taps or more.
        task: what the labels mean.
        supervised: weight a of an exit's supervised loss. The paper gives none; as in MUSE's file
            here.
        soft: weight b of an exit's soft loss; 0 gives the row "CE".
        temperature: of the soft loss; 3 as in BYOT's code.
        bottleneck: exit head, "slim" (pools first) or "byot" (the BYOT port's).
        discrepancy: d between an exit's map and the last feature: "none", "l2", "mmd",
            "adversarial" or "vid".
        discrepancy_weight: weight w; none takes the discrepancy's own: l2 0.05, mmd 50, adversarial
            0.1, vid 1. A discriminator's own loss always has weight 1.
        detach_last: keep the discrepancy from training the last feature; none does so for "vid".
    """

    kind = "self"
    provenance = Provenance.PAPER

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        supervised: float = 0.7,
        soft: float = 0.3,
        temperature: float = 3.0,
        bottleneck: Literal["slim", "byot"] = "slim",
        discrepancy: Literal["none", "l2", "mmd", "adversarial", "vid"] = "none",
        discrepancy_weight: float | None = None,
        detach_last: bool | None = None,
    ) -> None:
        super().__init__()
        if discrepancy == "none" and (discrepancy_weight or detach_last is not None):
            raise ConfigError(
                "discrepancy_weight and detach_last say how to use a discrepancy, and there is "
                f"none; give discrepancy one of {', '.join(DISCREPANCIES)}"
            )
        chosen = DISCREPANCIES.get(discrepancy, _Defaults(0.0, False))
        self.discrepancy = discrepancy
        self.weight = chosen.weight if discrepancy_weight is None else discrepancy_weight
        self.detach_last = chosen.detach_last if detach_last is None else detach_last
        if not (supervised or soft or self.weight):
            raise ConfigError(
                "exits need a loss: give supervised or soft a weight, or choose a discrepancy"
            )
        self.student, self.task = student, task
        self.exits = Exits(student, task, bottleneck, predict=bool(supervised or soft))
        self.weights = {"supervised": supervised, "soft": soft, "temperature": temperature}
        *shallow, last = student.shapes.values()
        if self.weight and discrepancy == "mmd" and last[1] * last[2] == 1:
            raise ConfigError(
                "mmd compares where channels respond, and the last feature is a single cell; "
                "choose another discrepancy, earlier taps or larger images"
            )
        self.learned = nn.ModuleList(
            Discriminator(last[0])
            if discrepancy == "adversarial"
            else VariationalGaussian(last[0], last[0])
            for _ in shallow
            if self.weight and discrepancy in ("adversarial", "vid")
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`; `task/i`, `soft/i` of the other exits; with a discrepancy `l2/i`, `mmd/i`, …"""
        out, features = self.student.forward_features(batch.inputs)
        maps, outputs = self.exits(features)
        losses = {"task": self.task.loss(out, batch.targets)}
        losses |= self.exits.losses(outputs, out, batch.targets, **self.weights)
        if self.weight:
            last = features[self.student.names[-1]]
            last = last.detach() if self.detach_last else last
            for i, x in enumerate(maps):
                losses |= {f"{n}/{i + 1}": term for n, term in self._apart(i, x, last).items()}
        return StepOutput(out, losses)

    def _apart(self, i: int, x: Tensor, last: Tensor) -> dict[str, Tensor]:
        """How far a map (B, C, h, w) is from the last feature, weighted."""
        if self.discrepancy == "adversarial":
            judge = self.learned[i]
            fooled = fools(judge, x, last, both=not self.detach_last)
            return {"adversarial": self.weight * fooled, "discriminator": tells(judge, x, last)}
        x, last = pooled_to(x, last), pooled_to(last, x)
        if self.discrepancy == "vid":
            loss = self.learned[i](x, last)
        elif self.discrepancy == "mmd":
            loss = channel_discrepancy(x, last)
        else:
            loss = (x.float() - last.float()).square().mean()
        return {self.discrepancy: self.weight * loss}

    def predictors(self) -> dict[str, nn.Module]:
        """`exit1`, `exit2`, … (if they have heads) and `student`."""
        return self.exits.predictors(self.student)

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """All of them in one pass."""
        return self.exits.predict(self.student, inputs)


def tells(judge: nn.Module, x: Tensor, last: Tensor) -> Tensor:
    """The judge's loss: 1 is the score of a last feature, 0 that of an exit's map."""
    real, fake = judge(last.detach()).float(), judge(x.detach()).float()
    loss: Tensor = (1 - real).square().mean() + fake.square().mean()
    return loss


def fools(judge: nn.Module, x: Tensor, last: Tensor, *, both: bool) -> Tensor:
    """The features' loss: scores the other way round, of the last feature too if `both` learn."""
    loss = (1 - call_with_frozen_parameters(judge, x).float()).square().mean()
    return loss + call_with_frozen_parameters(judge, last).float().square().mean() if both else loss
