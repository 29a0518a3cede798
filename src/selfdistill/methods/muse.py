from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..functional.gradient_routing import scale_grad
from ..functional.places import mean_over_places, pooled_to_size
from ..modules.bottlenecks import exit_grid
from ..modules.exits import ExitMethod, Exits
from ..modules.information_checks import active_weights
from ..modules.mutual_information import (
    MutualInformationLoss,
    StageEstimates,
    StageInformation,
)
from ..taps import Taps

_LAMBDA = {"instance": 0.1, "class": 0.3}
"""Weight of MI and SI by what belongs together."""


@METHODS.add("muse")
class Muse(ExitMethod):
    r"""Maximize each stage's mutual information with the last feature, and self-information.

    Gong et al. 2021, https://arxiv.org/abs/2110.12606. With features :math:`F_1 … F_T` at the taps,

    .. math::
        L = L_{task}(z_T) + \sum_{i<T} \left[ a L_{task}(z_i) + b L_{soft}(z_i, sg\, z_T) \right]
            + \lambda \sum_{i<T} C(MI_i, SI_i)

    where the features follow the third sum's gradient and each critic that of its own loss alone,
    whatever λ is. MI_i is the Jensen-Shannon loss (Eq. 5) between exit i's feature and the pooled
    :math:`F_T`, SI_i that between exit i's feature and its own pooled vector, and C their weighted
    sum :math:`w_1 MI_i + w_2 SI_i` (Eq. 4) or product :math:`MI_i^{w_1} SI_i^{w_2}` (Eq. 6, applied
    to the losses: a product of the negated estimates would be *minimized* information). A feature's
    information about itself needs two views: a critic that is shown the same tensor twice decides
    "same or not" at once. As in Deep InfoMax the views are the cells of the map and its mean.

    Nothing is detached but the target of the soft loss: MI_i trains stages 1 … T and exit i, SI_i
    stages 1 … i and exit i, each its own critic, and neither touches a classifier. Exits have no
    soft loss where their outputs and the network's do not compare, as in the paper's section 4.2:
    there an exit is one more head on one map, and the network's own head reads three.

    Measured here (docs/study.md), the gain over plain training is that of the first two sums, which
    `exits` has as well: the third adds nothing to it, and as a sum at λ = 0.1 it costs a small
    network half a point (ten pairs) and the exits of a wide one 0.6 to 0.9 points (five). Features
    do inform one another more, the more so the larger λ is, but are no better for the classes.
    With all images of a class as positives it adds 0.4 points (0.1 … 0.7, ten pairs) on 1,000
    images, and nothing (−0.5 … 0.4) on 4,000.

    No code of MUSE is public and its supplement is lost; what the paper leaves open is marked below
    as chosen here.

    Args:
        student: a network with two taps or more.
        task: what the labels mean.
        combine: "add" (MI + SI, Eq. 4) or "mul" (MI × SI, Eq. 6).
        information_weight: weight λ ≥ 0 of MI and SI together in the gradient of the features; the
            critics learn at their full rate. None takes 0.3 for positives of a class, and 0.1 for
            an image's own: chosen here, small, since both terms then also tell images of one class
            apart, which is not what the task asks for.
        mi_weight: weight of MI in the sum, its exponent in the product; 0 leaves it out (Table 5).
        si_weight: the same for SI.
        supervised_weight: weight a of an exit's supervised loss; 0 leaves it out. Chosen here
            (BYOT's later code: 0.7).
        soft_weight: weight b of an exit's soft loss; 0 leaves it out. Chosen here (BYOT's later
            code: 0.3).
        temperature: of the soft loss; 3 as in BYOT's code.
        critic: "separable" (a dot product, fast), "concat" (1×1 convolutions, closest to the paper)
            or "global".
        critic_width: channels of the critics' hidden layers; none takes 128 for separable, 512 for
            the others.
        negatives: "all" other images of the batch, or "roll" for one each; none takes "all" for
            separable.
        positives: pairs that belong together: an image's own, "instance", or all of one "class",
            which is ours, not the paper's, and wants all pairs and "jsd".
        estimator: "jsd" (Eq. 5), "infonce", "dv" or "nwj"; the last two can be negative, so not for
            "mul".
        global_critic_weight: weight of a global critic beside the local one; Deep InfoMax has 0.5,
            chosen here: none.
        bottleneck: exit head, "slim" (pools first) or "byot" (the BYOT port's, most likely the
            paper's).
        feature_source: where exit i's feature is read, behind its "bottleneck" or "raw" at the tap,
            pooled.
        si_global_view: SI's vector, the feature's own mean ("pool") or, of a raw feature, its
            bottleneck's ("encoded").
        detach_last: keep MI from training the last feature. The paper wants both sides to learn.
    """

    kind = "self"
    provenance = Provenance.PAPER
    needs = Needs(batch=2, clips=True)

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        combine: Literal["add", "mul"] = "add",
        information_weight: float | None = None,
        mi_weight: float = 1.0,
        si_weight: float = 1.0,
        supervised_weight: float = 0.7,
        soft_weight: float = 0.3,
        temperature: float = 3.0,
        critic: Literal["separable", "concat", "global"] = "separable",
        critic_width: int | None = None,
        negatives: Literal["all", "roll"] | None = None,
        positives: Literal["instance", "class"] = "instance",
        estimator: Literal["jsd", "infonce", "dv", "nwj"] = "jsd",
        global_critic_weight: float = 0.0,
        bottleneck: Literal["slim", "byot"] = "slim",
        feature_source: Literal["bottleneck", "raw"] = "bottleneck",
        si_global_view: Literal["pool", "encoded"] = "pool",
        detach_last: bool = False,
    ) -> None:
        super().__init__()
        by_class = positives == "class"
        if information_weight is None:
            information_weight = _LAMBDA[positives]
        weights = active_weights(mi_weight, si_weight, information_weight, combine, estimator)
        if by_class and (critic != "separable" or negatives == "roll" or estimator != "jsd"):
            raise ConfigError(
                "positives='class' compares all pairs: it goes with critic='separable', "
                "negatives='all' and estimator='jsd' only"
            )
        if by_class and not task.image_labels:
            raise ConfigError(
                f"positives='class' wants one class label an image, which {task.name} lacks; use "
                "positives='instance'"
            )
        self.needs = self.needs._replace(image_labels=by_class, single_label=by_class)
        self.student, self.task = student, task
        self.information_weight = information_weight
        self.by_class, self.detach_last = by_class, detach_last
        self.raw, self.encoded_si = feature_source == "raw", si_global_view == "encoded"
        self.exit_options = (supervised_weight, soft_weight, temperature)
        predict = bool(supervised_weight or soft_weight)
        # What only MI and SI train, bottlenecks without heads too, is a part of the critics.
        self.pressed_at_taps = not predict
        encodes = predict or (bool(weights) and not self.raw)
        encodes = encodes or ("self" in weights and self.encoded_si)
        self.exits = Exits(student, task, bottleneck if encodes else None, predict=predict)
        *shallow, last = student.shapes.values()
        self.grids = [exit_grid(shape, last) for shape in shallow]
        loss = partial(
            MutualInformationLoss,
            critic=critic,
            critic_width=critic_width,
            negatives=negatives,
            estimator=estimator,
            global_critic_weight=global_critic_weight,
        )
        self.critics = StageInformation(
            weights,
            [shape[0] if self.raw else last[0] for shape in shallow],
            [last[0]],
            si_channels=[last[0]] * len(shallow) if self.encoded_si else None,
            combine=combine,
            loss=loss,
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `task/i`, `soft/i`, `mutual/i` and `self/i`."""
        outputs, features, pooled = self.student.forward_pooled(batch.inputs)
        if self.pressed_at_taps:
            features = {name: self._pressed(feature) for name, feature in features.items()}
        maps, exit_outputs = self.exits(features)
        losses = {"task": self.task.loss(outputs, batch.targets)}
        losses |= self.exits.losses(exit_outputs, outputs, batch.targets, *self.exit_options)
        shallow = list(features.values())[:-1]
        if not self.pressed_at_taps:
            shallow, maps = ([self._pressed(x) for x in xs] for xs in (shallow, maps))
        stages = self._information(shallow, self._pressed(pooled), maps, batch.targets, progress)
        losses |= self.critics.losses(stages)
        return StepOutput(outputs, losses, self.critics.monitors(stages))

    def _pressed(self, feature: Tensor) -> Tensor:
        return scale_grad(feature, self.information_weight)

    def _information(
        self,
        shallow: list[Tensor],
        last_vector: Tensor,
        maps: list[Tensor],
        targets: Any,
        progress: Progress,
    ) -> list[StageEstimates]:
        """MI and SI of every exit on the views that were chosen."""
        last_vector = last_vector.detach() if self.detach_last else last_vector  # (B, C_last)
        stage_maps = maps
        if self.raw:
            pairs = zip(shallow, self.grids, strict=True)
            stage_maps = [pooled_to_size(feature, grid) for feature, grid in pairs]
        stages: list[StageEstimates] = self.critics(
            stage_maps,
            [last_vector],
            progress,
            si_vectors=[mean_over_places(x) for x in maps] if self.encoded_si else None,
            same_class_mask=self.task.same_class_mask(targets) if self.by_class else None,
        )
        return stages

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Warnings of MI and SI at chance or near zero, which silences a product."""
        return self.critics.diagnose(monitors)
