from collections.abc import Mapping

import torch
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
from ..taps import Taps

SPREAD = "spread"
"""Monitor of the spread of the representations over a batch."""
_COLLAPSED = 0.05


@METHODS.add("skd-srl")
class SiameseSelfDistillation(Method):
    r"""Match the class distributions and the representations of two clips of a video.

    Vu, Phung and Wang 2021, "A Novel Self-Knowledge Distillation Approach with Siamese
    Representation Learning for Action Recognition", https://arxiv.org/abs/2209.01311. **A
    reconstruction from the abstract**, which says that soft labels and the similarity of
    representations of two views of a sample are distilled in one network; no code is public. With
    the outputs z and the pooled last features r of two views a and b, a predictor h and D the
    negative cosine,

    .. math::
        L = CE(z_a, y) + CE(z_b, y) + \lambda \left[ KL_\tau(sg\, z_b \,\|\, z_a) + KL_\tau(sg\, z_a
            \,\|\, z_b) \right] + \frac{\gamma}{2} \left[ D(h(r_a), sg\, r_b) + D(h(r_b), sg\, r_a)
            \right]

    λ, τ and that the divergence has no factor τ² are those of Self-KD by the same authors, another
    system (https://github.com/vdquang1991/Self-KD): a single network whose teacher is its own best
    checkpoint. At τ = 10 the term without its factor is weak; a `soft_weight` of 10 is what 0.1
    would be with it. The similarity is SimSiam's (https://arxiv.org/abs/2011.10566) with its
    predictor and its stop-gradient, directly on r, without a projector. γ, labels on both views and
    one pass through the network for both, whose batch norm so sees them together, are chosen here.

    Nothing but labels, predictor and stop-gradient keeps the representations from being one vector.
    `spread` is their standard deviation over the batch at unit length, times the root of their
    number of channels: 1 where they point everywhere, less where they share a mean, as those behind
    a ReLU do, and 0 where they are one. Less than a twentieth is reported.

    Views of images serve as well as clips. The predictor is dropped after training.

    Args:
        student: a network; its last tap is the representation.
        task: what the labels mean; its outputs must be a tensor with the batch as dim 0.
        soft_weight: weight λ ≥ 0 of the soft losses; 0.1 in Self-KD.
        temperature: τ > 0 of the soft losses; 10 in Self-KD.
        similarity_weight: weight γ ≥ 0 of the similarity; 1, chosen here. 0 leaves it out.
    """

    kind = "self"
    provenance = Provenance.ABSTRACT
    needs = Needs(views=2, clips=True)

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        soft_weight: float = 0.1,
        temperature: float = 10.0,
        similarity_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student, self.task = student, task
        self.soft_weight, self.temperature = soft_weight, temperature
        self.similarity_weight = similarity_weight
        width = student.shapes[student.names[-1]][0]
        self.predictor = build_predictor(width) if similarity_weight else None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft`, each summed over the two views, and `similarity`."""
        if not batch.views:
            raise ConfigError(
                "skd-srl needs two views of each clip: fill Batch.views, as Loader(views=2) does"
            )
        views = torch.cat([batch.inputs, batch.views[0]])
        outputs, _, pooled = self.student.forward_pooled(views)  # (2B, C)
        first, second = outputs.chunk(2)
        task = self.task.loss(first, batch.targets) + self.task.loss(second, batch.targets)
        soft = self.task.soft_loss(first, second.detach(), self.temperature)
        soft = soft + self.task.soft_loss(second, first.detach(), self.temperature)
        # whose factor τ² Self-KD has not
        losses = {"task": task, "soft": self.soft_weight / self.temperature**2 * soft}
        if self.predictor is not None:
            predictions = self.predictor(pooled).chunk(2)
            targets = pooled.detach().chunk(2)
            similarity = negative_cosine(predictions[0], targets[1])
            similarity = (similarity + negative_cosine(predictions[1], targets[0])) / 2
            losses["similarity"] = self.similarity_weight * similarity
        return StepOutput(first, losses, {SPREAD: spread(pooled.detach())})

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Representations that have become one vector."""
        if monitors.get(SPREAD, 1.0) >= _COLLAPSED:
            return {}
        return {
            SPREAD: "the representations of all samples point one way, so their similarity teaches "
            "nothing; lower --similarity-weight or the learning rate"
        }


def build_predictor(width: int) -> nn.Sequential:
    """SimSiam's predictor: two linear layers with a quarter of the channels between them."""
    middle = max(1, width // 4)
    return nn.Sequential(
        nn.Linear(width, middle, bias=False),
        nn.BatchNorm1d(middle),
        nn.ReLU(),
        nn.Linear(middle, width),
    )


def negative_cosine(x: Tensor, y: Tensor) -> Tensor:
    """The mean negative cosine of the rows of two matrices (B, D), in fp32."""
    return -F.cosine_similarity(x.float(), y.float()).mean()


def spread(x: Tensor) -> Tensor:
    """The standard deviation over a batch of vectors (B, D) at unit length, times the root of D.

    The mean over the channels, in fp32.
    """
    deviation: Tensor = F.normalize(x.float()).std(0, correction=0).mean()
    return deviation * float(x.shape[1] ** 0.5)
