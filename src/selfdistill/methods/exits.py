from typing import Literal, NamedTuple

from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Progress, Provenance, StepOutput, Task
from ..functional.attention import pooled_to
from ..functional.gradient_routing import call_with_frozen_parameters, scale_grad
from ..functional.kernel import channel_discrepancy
from ..modules.discriminators import Discriminator
from ..modules.exits import ExitMethod, Exits
from ..modules.variational import VariationalGaussian
from ..taps import Taps


class Discrepancy(NamedTuple):
    """Defaults of a discrepancy."""

    weight: float
    detach_last: bool


DISCREPANCIES = {
    "l2": Discrepancy(0.05, False),
    "mmd": Discrepancy(50.0, False),
    "adversarial": Discrepancy(0.1, False),
    "vid": Discrepancy(1.0, True),
}
"""Discrepancies by the name a user gives."""


@METHODS.add("exits")
class SupervisedExits(ExitMethod):
    r"""Deep supervision of exits, with soft labels and, if chosen, features from the last exit.

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
      squares; each side is trained to be taken for the other. `discriminator/i` trains nothing but
      the discriminator and `adversarial/i` everything but it, both in one step.
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
        supervised_weight: weight a of an exit's supervised loss. The paper gives none; as in `muse`
            here.
        soft_weight: weight b of an exit's soft loss; 0 gives the row "CE".
        temperature: of the soft loss; 3 as in BYOT's code.
        bottleneck: exit head, "slim" (pools first) or "byot" (the BYOT port's).
        discrepancy: d between an exit's map and the last feature: "none", "l2", "mmd",
            "adversarial" or "vid".
        discrepancy_weight: weight w; none takes the discrepancy's own: l2 0.05, mmd 50, adversarial
            0.1, vid 1. Discriminators and bounds learn at their full rate, whatever it is.
        detach_last: keep the discrepancy from training the last feature; none does so for "vid".
    """

    kind = "self"
    provenance = Provenance.PAPER

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        supervised_weight: float = 0.7,
        soft_weight: float = 0.3,
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
        defaults = DISCREPANCIES.get(discrepancy, Discrepancy(0.0, False))
        self.discrepancy = discrepancy
        self.weight = defaults.weight if discrepancy_weight is None else discrepancy_weight
        self.detach_last = defaults.detach_last if detach_last is None else detach_last
        if not (supervised_weight or soft_weight or self.weight):
            raise ConfigError(
                "exits need a loss: give supervised_weight or soft_weight a value above 0, or "
                "choose a discrepancy"
            )
        self.student, self.task = student, task
        self.exits = Exits(
            student, task, bottleneck, predict=bool(supervised_weight or soft_weight)
        )
        self.exit_options = (supervised_weight, soft_weight, temperature)
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
        outputs, features = self.student.forward_features(batch.inputs)
        maps, exit_outputs = self.exits(features)
        losses = {"task": self.task.loss(outputs, batch.targets)}
        losses |= self.exits.losses(exit_outputs, outputs, batch.targets, *self.exit_options)
        if self.weight:
            last = features[self.student.names[-1]]
            last = last.detach() if self.detach_last else last
            for i, x in enumerate(maps):
                terms = self._discrepancy_terms(i, x, last)
                losses |= {f"{name}/{i + 1}": loss for name, loss in terms.items()}
        return StepOutput(outputs, losses)

    def _discrepancy_terms(self, i: int, x: Tensor, last: Tensor) -> dict[str, Tensor]:
        """The weighted discrepancy of exit i's map (B, C, h, w) and the last feature."""
        if self.discrepancy == "adversarial":
            discriminator = self.learned[i]
            loss = feature_loss(discriminator, x, last, both=not self.detach_last)
            return {
                "adversarial": self.weight * loss,
                "discriminator": discriminator_loss(discriminator, x, last),
            }
        x, last = pooled_to(x, last), pooled_to(last, x)
        if self.discrepancy == "vid":  # the bound learns at its full rate, whatever the weight
            return {"vid": self.learned[i](*(scale_grad(f, self.weight) for f in (x, last)))}
        if self.discrepancy == "mmd":
            loss = channel_discrepancy(x, last)
        else:
            loss = (x.float() - last.float()).square().mean()
        return {self.discrepancy: self.weight * loss}


def discriminator_loss(discriminator: nn.Module, x: Tensor, last: Tensor) -> Tensor:
    """Least squares to the score 1 for a last feature and 0 for an exit's map."""
    real, fake = discriminator(last.detach()).float(), discriminator(x.detach()).float()
    loss: Tensor = (1 - real).square().mean() + fake.square().mean()
    return loss


def feature_loss(discriminator: nn.Module, x: Tensor, last: Tensor, *, both: bool) -> Tensor:
    """Least squares to the opposite scores: 1 for the exit's map and, if `both`, 0 for the last."""
    loss = (1 - call_with_frozen_parameters(discriminator, x).float()).square().mean()
    if not both:
        return loss
    return loss + call_with_frozen_parameters(discriminator, last).float().square().mean()
