import torch
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
from ..taps import Taps


@METHODS.add("ddgsd")
class DataDistortionSelfDistillation(Method):
    r"""Match the class distributions and the mean features (MMD) of two augmented views.

    Xu and Liu 2019, https://doi.org/10.1609/aaai.v33i01.33015565; the rows "DDGSD" of MUSE's Table
    2. With the outputs z and the pooled last features g of two views a and b of the same images,
    and KL_τ the soft loss with its factor τ²,

    .. math::
        L = CE(z_a, y) + CE(z_b, y) + \lambda \left[ KL_\tau(sg\, z_b \,\|\, z_a) + KL_\tau(sg\, z_a
            \,\|\, z_b) \right] + \mu \left\lVert \overline{g_a} - \overline{g_b} \right\rVert^2

    The last term is the squared maximum mean discrepancy with a linear kernel: means are over the
    batch (each process's and pass's own share, so the term depends on how that is split), the norm
    is that of a vector with an entry a channel.

    Both views go through the network in one pass, as one batch of twice the size, so batch norm
    sees them together. No authors' code is public, and what there is disagrees with the paper:
    Self-KD-Lib averages the features over the channels, too, which leaves next to nothing of the
    last term, and halves the supervised loss; another port compares logits instead of features. We
    follow the paper there, and Self-KD-Lib in that the target view is detached, which the paper
    does not state. The weights are those that the other port gives as the paper's.

    Args:
        student: a network; its last tap is the feature.
        task: what the labels mean; its outputs must be a tensor with the batch as dim 0.
        soft_weight: weight λ ≥ 0 of the soft losses; 1 by the notes.
        temperature: τ > 0 of the soft losses; 3 by the notes.
        discrepancy_weight: weight μ ≥ 0 of the discrepancy of the mean features; 5e-4 by the notes.
    """

    kind = "self"
    provenance = Provenance.NOTES
    needs = Needs(views=2)

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        soft_weight: float = 1.0,
        temperature: float = 3.0,
        discrepancy_weight: float = 5e-4,
    ) -> None:
        super().__init__()
        self.student, self.task = student, task
        self.soft_weight, self.temperature = soft_weight, temperature
        self.discrepancy_weight = discrepancy_weight

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft`, each summed over the two views, and `discrepancy`."""
        if not batch.views:
            raise ConfigError(
                "ddgsd needs two views of each image: fill Batch.views, as Loader(views=2) does"
            )
        images = torch.cat([batch.inputs, batch.views[0]])
        outputs, _, pooled = self.student.forward_pooled(images)  # (2B, C)
        first, second = outputs.chunk(2)
        task = self.task.loss(first, batch.targets) + self.task.loss(second, batch.targets)
        soft = self.task.soft_loss(first, second.detach(), self.temperature)
        soft = soft + self.task.soft_loss(second, first.detach(), self.temperature)
        discrepancy = mean_discrepancy(*pooled.chunk(2))
        losses = {
            "task": task,
            "soft": self.soft_weight * soft,
            "discrepancy": self.discrepancy_weight * discrepancy,
        }
        return StepOutput(first, losses, {"discrepancy": discrepancy.detach()})


def mean_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The squared distance of the means of two samples (B, D), in fp32."""
    return (x.float().mean(0) - y.float().mean(0)).square().sum()
