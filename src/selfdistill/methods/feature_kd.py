import math
from typing import Literal

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
from ..functional.attention import pooled_to
from ..modules.pairs import Shape, check_layouts, paired_shapes
from ..taps import Taps, Teacher

_EPS = 1e-12  # of a variance, so that channels of any scale have a deviation of 1


@METHODS.add("feature-kd")
class FeatureKnowledgeDistillation(Method):
    r"""Give the features of a frozen teacher, of any classes or none, on images without labels.

    The loss is that of AM-RADIO (Ranzinger et al. 2024, https://arxiv.org/abs/2312.06709, section
    3.4) with one teacher, whose features are standardized as in Theia (Shang et al. 2024,
    https://arxiv.org/abs/2407.20179). With y the student's output, p the teacher's last feature as
    its classifier pools it (a class token, or the mean over places), :math:`F_s, F_t` a map of the
    student and of the teacher, a linear projection r of each place, and :math:`\hat t` a teacher's
    feature with mean 0 and deviation 1 in each channel,

    .. math:: L = 1 - \cos(y, \hat p) + \sum_{stages} \overline{
        \alpha (1 - \cos(r(F_s), \hat F_t)) + (1 - \alpha)\, smooth_{L1}(r(F_s), \hat F_t)}

    where the bar is a mean over images and places. The larger of two maps is averaged to the size
    of the other. Both papers take α = 0.9.

    The student's classifier, which is as wide as p, is the projection of the pooled feature, so
    that the network that is left gives an embedding of an image like its teacher's. Another run
    takes all but this layer by `--weights`. A run is evaluated by the mean cosine similarity of y
    with :math:`\hat p` on held-out images: 0 is chance and 1 the teacher, and two similarities
    compare where the teacher is the same.

    Both papers learn from several teachers at once, by heads of several layers, and AM-RADIO by
    features that are not standardized; Theia standardizes by all training images, and compares
    places alone. Here mean and deviation are those of the batch, and in evaluation a running mean
    of them. A channel of large mean or deviation, of which foundation models have some, would else
    outweigh the others in every cosine.

    Args:
        student: a network whose output is as wide as the teacher's pooled last feature.
        teacher: any trained network; its outputs are not read.
        task: embeddings.
        summary_weight: weight > 0 of the term of the output; 1 in AM-RADIO.
        spatial_weight: weight ≥ 0 of the term of the maps; 1 in AM-RADIO. 0 leaves it out.
        cosine_fraction: α in [0, 1].
        stages: whose maps are compared: of the last taps, as in both papers, or of all, by number.
    """

    kind = "offline"
    provenance = Provenance.PAPER
    needs = Needs(batch=2, embeddings=True)

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        summary_weight: float = 1.0,
        spatial_weight: float = 1.0,
        cosine_fraction: float = 0.9,
        stages: Literal["last", "all"] = "last",
    ) -> None:
        super().__init__()
        _check_weights(summary_weight, spatial_weight, cosine_fraction)
        self.student, self.teacher, self.task = student, teacher, task
        self.summary_weight, self.spatial_weight = summary_weight, spatial_weight
        self.cosine_fraction = cosine_fraction
        width = teacher.shapes[teacher.names[-1]][0]
        if len(task.classes) != width:
            raise ConfigError(
                f"the student gives {len(task.classes)} numbers an image and the teacher's last "
                f"feature, at '{teacher.names[-1]}', has {width} channels; build the student with "
                f"num_classes={width}"
            )
        self.teacher_reads = "features" if spatial_weight else "pooled"
        self.summary_norm = nn.BatchNorm1d(width, eps=_EPS, affine=False)
        pairs = _pairs(student, teacher, stages) if spatial_weight else []
        self.places = [names for names, _ in pairs]
        self.projections = nn.ModuleList(nn.Conv2d(s[0], t[0], 1) for _, (s, t) in pairs)
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(t[0], eps=_EPS, affine=False) for _, (_, t) in pairs
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`summary`, and `spatial/1` to the number of stages, if they have a weight."""
        outputs, features = self.student.forward_features(batch.inputs)
        targets: dict[str, Tensor] = {}
        if self.places:
            _, targets, pooled = self.teacher.forward_pooled(batch.inputs)
        else:
            _, pooled = self.teacher.pooled(batch)
        summary = self.task.loss(outputs, self.summary_norm(pooled.float()))
        losses = {"summary": self.summary_weight * summary}
        stages = zip(self.places, self.projections, self.norms, strict=True)
        for number, ((source, target), project, norm) in enumerate(stages, 1):
            own = project(pooled_to(features[source], targets[target]))
            standard = norm(pooled_to(targets[target], features[source]).float())
            spatial = match_loss(own, standard, self.cosine_fraction)
            losses[f"spatial/{number}"] = self.spatial_weight * spatial
        return StepOutput(outputs, losses)


def match_loss(x: Tensor, target: Tensor, cosine_fraction: float) -> Tensor:
    """AM-RADIO's distance of two maps (B, D, h, w), over all places, in fp32.

    Args:
        x, target: of one shape.
        cosine_fraction: weight of one minus the cosine similarity of each place; the rest is that
            of the smooth L1 distance, a mean over channels, too.
    """
    x, target = x.float(), target.float()
    cosine = 1 - F.cosine_similarity(x, target).mean()
    return cosine_fraction * cosine + (1 - cosine_fraction) * F.smooth_l1_loss(x, target)


def _pairs(
    student: Taps, teacher: Teacher, stages: str
) -> list[tuple[tuple[str, str], tuple[Shape, Shape]]]:
    """Names and shapes of the maps that are compared."""
    if stages == "all":
        names = list(zip(student.names, teacher.names, strict=False))
        return list(zip(names, paired_shapes(student, teacher), strict=True))
    last = student.names[-1], teacher.names[-1]
    shapes = student.shapes[last[0]], teacher.shapes[last[1]]
    check_layouts(*shapes)
    return [(last, shapes)]


def _check_weights(summary: float, spatial: float, cosine_fraction: float) -> None:
    if not (0 < summary < math.inf and 0 <= spatial < math.inf):
        raise ConfigError(
            f"summary_weight={summary:g} must be above 0 and spatial_weight={spatial:g} 0 or more; "
            "the defaults are 1"
        )
    if not 0 <= cosine_fraction <= 1:
        raise ConfigError(
            f"cosine_fraction={cosine_fraction:g} is a fraction in 0 … 1; the default is 0.9"
        )
