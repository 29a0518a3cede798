from collections.abc import Mapping
from functools import partial
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
from ..functional.gradient_routing import scale_grad
from ..modules.exits import Exits
from ..modules.information_checks import active_weights
from ..modules.mutual_information import (
    MutualInformationLoss,
    StageInformation,
)
from ..taps import Taps, Teacher


@METHODS.add("muse-offline")
class MuseOffline(Method):
    r"""Maximize each stage's mutual information with a teacher's last feature and self-information.

    The offline form of MUSE, Gong et al. 2021, https://arxiv.org/abs/2110.12606. With features
    :math:`F_1 … F_T` of the student, :math:`G` the teacher's last one and :math:`z` logits,

    .. math::
        L = a L_{task}(z_T) + b L_{soft}(z_T, sg\, z_{teacher}) + \lambda \sum_{i<T} C(MI_i, SI_i)

    where MI_i is the information loss (Eq. 5) between the feature behind bottleneck i and the
    pooled G, SI_i that between the same feature and its own pooled vector, and C their weighted sum
    (Eq. 4) or product (Eq. 6), as in self-distillation. Labels and logits train the last layer
    only: the bottlenecks carry no classifiers, and the student's last feature has no term of
    information. So the two networks may have any number of taps; of the teacher only the last one
    is read.

    Table 7 has ResNet-56 teach ResNet-20 on CIFAR-100: 71.30 % with the sum and 71.27 % with the
    product, after 69.06 % alone and 70.66 % with soft labels. No code is public; the weights are
    chosen here.

    Args:
        student: a network with two taps or more.
        teacher: a trained network; its last tap is the deep feature.
        task: what the labels mean.
        combine: "add" (MI + SI, Eq. 4) or "mul" (MI × SI, Eq. 6).
        information_weight: weight λ of MI and SI together in the gradient of the networks; critics
            and bottlenecks learn at their full rate. 0 leaves plain distillation of logits.
            Chosen here, as in self-distillation.
        mi_weight: weight of MI in the sum, its exponent in the product; 0 leaves it out.
        si_weight: the same for SI.
        supervised_weight: weight a of the supervised loss; 0 leaves it out. The paper writes the
            sum of the two losses without weights; chosen here: 1 each (the CRD benchmark, whose
            baselines Table 7 quotes, has 0.1 and 0.9 for soft labels alone).
        soft_weight: weight b of the soft loss; 0 leaves it out, and outputs that do not compare
            have none. Chosen here, see `supervised_weight`.
        temperature: of the soft loss; 4 as in the CRD benchmark.
        critic: "separable" (a dot product, fast), "concat" (1×1 convolutions, closest to the paper)
            or "global".
        critic_width: channels of the critics' hidden layers; none takes 128 for separable, 512 for
            the others.
        negatives: "all" other images of the batch, or "roll" for one each; none takes "all" for
            separable.
        estimator: "jsd" (Eq. 5), "infonce", "dv" or "nwj"; the last two can be negative, so not for
            "mul".
        global_critic_weight: weight of a global critic beside the local one; Deep InfoMax has 0.5,
            chosen here: none.
        bottleneck: "slim" (pools first) or "byot" (the BYOT port's, most likely the paper's).
    """

    kind = "offline"
    provenance = Provenance.PAPER
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        combine: Literal["add", "mul"] = "add",
        information_weight: float = 0.1,
        mi_weight: float = 1.0,
        si_weight: float = 1.0,
        supervised_weight: float = 1.0,
        soft_weight: float = 1.0,
        temperature: float = 4.0,
        critic: Literal["separable", "concat", "global"] = "separable",
        critic_width: int | None = None,
        negatives: Literal["all", "roll"] | None = None,
        estimator: Literal["jsd", "infonce", "dv", "nwj"] = "jsd",
        global_critic_weight: float = 0.0,
        bottleneck: Literal["slim", "byot"] = "slim",
    ) -> None:
        super().__init__()
        if not (supervised_weight or soft_weight):
            raise ConfigError(
                "the last layer needs a loss: give supervised_weight or soft_weight a value above 0"
            )
        weights = active_weights(mi_weight, si_weight, information_weight, combine, estimator)
        self.student, self.teacher, self.task = student, teacher, task
        self.information_weight = information_weight
        self.supervised_weight, self.soft_weight = supervised_weight, soft_weight
        self.temperature = temperature
        self.needs = Needs(batch=2, teacher_scores=bool(soft_weight))
        self.exits = Exits(student, task, bottleneck if weights else None, predict=False)
        *shallow, last = student.shapes.values()
        loss = partial(
            MutualInformationLoss,
            critic=critic,
            critic_width=critic_width,
            negatives=negatives,
            estimator=estimator,
            global_critic_weight=global_critic_weight,
        )
        teacher_channels = list(teacher.shapes.values())[-1][0]
        self.critics = StageInformation(
            weights, [last[0]] * len(shallow), [teacher_channels], combine=combine, loss=loss
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft`, `mutual/i` and `self/i`."""
        outputs, features = self.student.forward_features(batch.inputs)
        # without a gradient
        teacher_outputs, _, teacher_vector = self.teacher.forward_pooled(batch.inputs)
        losses: dict[str, Tensor] = {}
        if self.supervised_weight:
            losses["task"] = self.supervised_weight * self.task.loss(outputs, batch.targets)
        if self.soft_weight and self.task.outputs_compatible(outputs, teacher_outputs):
            mask = self.task.valid_mask(batch.targets)
            soft_loss = self.task.soft_loss(outputs, teacher_outputs, self.temperature, mask=mask)
            losses["soft"] = self.soft_weight * soft_loss
        # The bottlenecks, which nothing else trains, are a part of the critics.
        pressed = {n: scale_grad(x, self.information_weight) for n, x in features.items()}
        maps, _ = self.exits(pressed)
        stages = self.critics(maps, [teacher_vector], progress)
        losses |= self.critics.losses(stages)
        return StepOutput(outputs, losses, self.critics.monitors(stages))

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Warnings of MI and SI at chance or near zero, which silences a product."""
        return self.critics.diagnose(monitors)
