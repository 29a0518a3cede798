from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Method,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..modules.exits import Exits
from ..modules.stagewise import StageInformation, powers_of
from ..taps import Taps, Teacher


@METHODS.add("muse-offline")
class MuseOffline(Method):
    r"""Make every stage informative about a frozen teacher's last feature (MI) and itself (SI).

    The offline form of MUSE, Gong et al. 2021, https://arxiv.org/abs/2110.12606. With features
    :math:`F_1 … F_T` of the student, :math:`G` the teacher's last one and :math:`z` logits,

    .. math::
        L = a L_{task}(z_T) + b L_{soft}(z_T, sg\, z_{teacher}) + \lambda \sum_{i<T} C(MI_i, SI_i)

    where MI_i is the information loss (Eq. 5) between the feature behind bottleneck i and the
    pooled G, SI_i that between the same feature and its own pooled vector, and C their sum (Eq. 4)
    or product (Eq. 6), as in self-distillation. Labels and logits teach the last layer only: the
    bottlenecks carry no classifiers, and the student's last feature has no term of information. So
    the two networks may have any number of taps; of the teacher only the last one is read.

    Table 7 has ResNet-56 teach ResNet-20 on CIFAR-100: 71.30 % with the sum and 71.27 % with the
    product, after 69.06 % alone and 70.66 % with soft labels. No code is public; the weights are
    chosen here.

    Args:
        student: a network with two taps or more.
        teacher: a trained network; its last tap is the deep feature.
        task: what the labels mean.
        combine: "add" (MI + SI, Eq. 4) or "mul" (MI × SI, Eq. 6).
        information: weight λ of MI and SI together; 0 leaves plain distillation of logits. Chosen
            here, as in self-distillation.
        mutual: weight of MI in the sum, its exponent in the product; 0 leaves it out.
        self_information: the same for SI.
        supervised: weight a of the supervised loss; 0 leaves it out. The paper writes the sum of
            the two losses without weights; chosen here: 1 each (the CRD benchmark, whose baselines
            Table 7 quotes, has 0.1 and 0.9 for soft labels alone).
        soft: weight b of the soft loss; 0 leaves it out, and outputs that do not compare have none.
            Chosen here, see `supervised`.
        temperature: of the soft loss; 4 as in the CRD benchmark.
        critic: "separable" (a dot product, fast), "concat" (1×1 convolutions, closest to the paper)
            or "global".
        width: of the critics; none takes 128 for separable, 512 for the others.
        negatives: "all" other images of the batch, or "roll" for one each; none takes "all" for
            separable.
        estimator: "jsd" (Eq. 5), "infonce", "dv" or "nwj"; the last two can be negative, so not for
            "mul".
        global_share: weight of a global critic beside the local one; Deep InfoMax has 0.5, chosen
            here: none.
        bottleneck: "slim" (pools first) or "byot" (the BYOT port's, most likely the paper's).
    """

    kind = "offline"
    provenance = Provenance.PAPER
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        teacher: Taps,
        task: Task,
        *,
        combine: Literal["add", "mul"] = "add",
        information: float = 0.1,
        mutual: float = 1.0,
        self_information: float = 1.0,
        supervised: float = 1.0,
        soft: float = 1.0,
        temperature: float = 4.0,
        critic: Literal["separable", "concat", "global"] = "separable",
        width: int | None = None,
        negatives: Literal["all", "roll"] | None = None,
        estimator: Literal["jsd", "infonce", "dv", "nwj"] = "jsd",
        global_share: float = 0.0,
        bottleneck: Literal["slim", "byot"] = "slim",
    ) -> None:
        super().__init__()
        if not (supervised or soft):
            raise ConfigError("the last layer needs a loss: give supervised or soft a weight")
        powers = powers_of(
            mutual, self_information, information=information, combine=combine, estimator=estimator
        )
        self.student, self.teacher, self.task = student, Teacher(teacher), task
        self.combine, self.information = combine, information
        self.supervised, self.soft, self.temperature = supervised, soft, temperature
        self.exits = Exits(student, task, bottleneck if powers else None, predict=False)
        *shallow, last = student.shapes.values()
        self.critics = StageInformation(
            powers,
            [last[0]] * len(shallow),
            [list(teacher.shapes.values())[-1][0]],
            critic=critic,
            width=width,
            negatives=negatives,
            estimator=estimator,
            global_share=global_share,
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft`, then `mutual/i` and `self/i` (add) or `product/i` (mul)."""
        out, features = self.student.forward_features(batch.inputs)
        reference, theirs = self.teacher.forward_features(batch.inputs)  # without a gradient
        losses: dict[str, Tensor] = {}
        if self.supervised:
            losses["task"] = self.supervised * self.task.loss(out, batch.targets)
        if self.soft and self.task.outputs_compatible(out, reference):
            losses["soft"] = self.soft * self.task.soft_loss(out, reference, self.temperature)
        maps, _ = self.exits(features)
        deep = list(theirs.values())[-1].mean((2, 3))  # (B, C_teacher)
        found = self.critics(maps, [deep], progress)
        losses |= self.critics.terms(found, combine=self.combine, information=self.information)
        return StepOutput(out, losses, self.critics.monitors(found))

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Terms that teach nothing: at chance, or solved, which silences a product whole."""
        return self.critics.diagnose(monitors)
