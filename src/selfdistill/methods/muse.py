from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

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
from ..modules.heads import grid_of
from ..modules.information import InformationEstimate
from ..modules.stagewise import StageInformation, powers_of
from ..taps import Taps


@METHODS.add("muse")
class Muse(Method):
    r"""Make every stage informative about the last one (MI) and about itself (SI).

    Gong et al. 2021, https://arxiv.org/abs/2110.12606. With features :math:`F_1 … F_T` at the taps,

    .. math::
        L = L_{task}(z_T) + \sum_{i<T} \left[ a L_{task}(z_i) + b L_{soft}(z_i, sg\, z_T) \right]
            + \lambda \sum_{i<T} C(MI_i, SI_i)

    where MI_i is the Jensen-Shannon loss (Eq. 5) between exit i's feature and the pooled
    :math:`F_T`, SI_i that between exit i's feature and its own pooled vector, and C their sum (Eq.
    4) or their product (Eq. 6, applied to the losses: a product of the negated estimates would be
    *minimized* information). A feature's information about itself needs two views: a critic that is
    shown the same tensor twice decides "same or not" at once. As in Deep InfoMax the views are the
    cells of the map and its mean.

    Nothing is detached but the target of the soft loss: MI_i trains stages 1 … T and exit i, SI_i
    stages 1 … i and exit i, each its own critic, and neither touches a classifier. Exits have no
    soft loss where their outputs and the network's do not compare, as in the paper's section 4.2:
    there an exit is one more head on one map, and the network's own head reads three.

    No code of MUSE is public and its supplement is lost; what the paper leaves open is marked below
    as chosen here.

    Args:
        student: a network with two taps or more.
        task: what the labels mean.
        combine: "add" (MI + SI, Eq. 4) or "mul" (MI × SI, Eq. 6).
        information: weight λ of MI and SI together. Chosen here, small: both terms also tell images
            of one class apart, which is not what the task asks for.
        mutual: weight of MI in the sum, its exponent in the product; 0 leaves it out (Table 5).
        self_information: the same for SI.
        supervised: weight a of an exit's supervised loss; 0 leaves it out. Chosen here (BYOT's
            later code: 0.7).
        soft: weight b of an exit's soft loss; 0 leaves it out. Chosen here (BYOT's later code:
            0.3).
        temperature: of the soft loss; 3 as in BYOT's code.
        critic: "separable" (a dot product, fast), "concat" (1×1 convolutions, closest to the paper)
            or "global".
        width: of the critics; none takes 128 for separable, 512 for the others.
        negatives: "all" other images of the batch, or "roll" for one each; none takes "all" for
            separable.
        positives: pairs that belong together: an image's own, "instance", or all of one "class",
            which is ours, not the paper's, and wants all pairs and "jsd".
        estimator: "jsd" (Eq. 5), "infonce", "dv" or "nwj"; the last two can be negative, so not for
            "mul".
        global_share: weight of a global critic beside the local one; Deep InfoMax has 0.5, chosen
            here: none.
        bottleneck: exit head, "slim" (pools first) or "byot" (the BYOT port's, most likely the
            paper's).
        site: where exit i's feature is read, behind its "bottleneck" or "raw" at the tap, pooled.
        self_view: SI's global view, the feature's own mean ("pool") or, of a raw site, its
            bottleneck's ("encoded").
        detach_last: keep MI from training the last feature. The paper wants both sides to learn.
    """

    kind = "self"
    provenance = Provenance.PAPER
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        combine: Literal["add", "mul"] = "add",
        information: float = 0.1,
        mutual: float = 1.0,
        self_information: float = 1.0,
        supervised: float = 0.7,
        soft: float = 0.3,
        temperature: float = 3.0,
        critic: Literal["separable", "concat", "global"] = "separable",
        width: int | None = None,
        negatives: Literal["all", "roll"] | None = None,
        positives: Literal["instance", "class"] = "instance",
        estimator: Literal["jsd", "infonce", "dv", "nwj"] = "jsd",
        global_share: float = 0.0,
        bottleneck: Literal["slim", "byot"] = "slim",
        site: Literal["bottleneck", "raw"] = "bottleneck",
        self_view: Literal["pool", "encoded"] = "pool",
        detach_last: bool = False,
    ) -> None:
        super().__init__()
        powers = powers_of(
            mutual, self_information, information=information, combine=combine, estimator=estimator
        )
        by_class = positives == "class"
        if by_class and (critic != "separable" or negatives == "roll" or estimator != "jsd"):
            raise ConfigError(
                "positives='class' compares all pairs: it goes with critic='separable', "
                "negatives='all' and estimator='jsd' only"
            )
        self.student, self.task = student, task
        self.combine, self.information, self.by_class = combine, information, by_class
        self.site, self.self_view, self.detach_last = site, self_view, detach_last
        self.weights = {"supervised": supervised, "soft": soft, "temperature": temperature}
        predict = bool(supervised or soft)
        views = site == "bottleneck" or ("self" in powers and self_view == "encoded")
        encodes = predict or (bool(powers) and views)
        self.exits = Exits(student, task, bottleneck if encodes else None, predict=predict)
        *shallow, last = student.shapes.values()
        self.grids = [grid_of(shape, last) for shape in shallow]
        local = [shape[0] if site == "raw" else last[0] for shape in shallow]
        self.critics = StageInformation(
            powers,
            local,
            [last[0]],
            own=None if self_view == "pool" else [last[0]] * len(shallow),
            critic=critic,
            width=width,
            negatives=negatives,
            estimator=estimator,
            global_share=global_share,
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `task/i`, `soft/i`, then `mutual/i` and `self/i` (add) or `product/i` (mul)."""
        out, features = self.student.forward_features(batch.inputs)
        maps, outputs = self.exits(features)
        losses = {"task": self.task.loss(out, batch.targets)}
        losses |= self.exits.losses(outputs, out, batch.targets, **self.weights)
        found = self._information(list(features.values()), maps, batch.targets, progress)
        losses |= self.critics.terms(found, combine=self.combine, information=self.information)
        return StepOutput(out, losses, self.critics.monitors(found))

    def _information(
        self, features: list[Tensor], maps: list[Tensor], targets: Any, progress: Progress
    ) -> dict[str, InformationEstimate]:
        """The raw losses of every exit, on the views that were chosen."""
        *shallow, last = features
        deep = last.mean((2, 3))  # (B, C_last)
        deep = deep.detach() if self.detach_last else deep
        local = maps
        if self.site == "raw":
            pairs = zip(shallow, self.grids, strict=True)
            local = [F.adaptive_avg_pool2d(feature, grid) for feature, grid in pairs]
        own = None if self.self_view == "pool" else [encoded.mean((2, 3)) for encoded in maps]
        alike = self.task.same_class_mask(targets) if self.by_class else None
        found: dict[str, InformationEstimate] = self.critics(
            local, [deep], progress, own=own, alike=alike
        )
        return found

    def predictors(self) -> dict[str, nn.Module]:
        """`exit1`, `exit2`, … (if they have heads) and `student`."""
        return self.exits.predictors(self.student)

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """All of them in one pass."""
        return self.exits.predict(self.student, inputs)

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Terms that teach nothing: at chance, or solved, which silences a product whole."""
        return self.critics.diagnose(monitors)
