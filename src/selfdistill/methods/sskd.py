import torch
from torch import Tensor

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Frozen,
    Method,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..functional.divergence import kl_divergence
from ..modules.rotations import TURNS, check_turnable, turned
from ..modules.view_similarity import ViewSimilarity
from ..taps import Taps


@METHODS.add("sskd")
class SelfSupervisedDistillation(Method):
    r"""Match a teacher's outputs and its similarities of turned images with plain ones.

    SSKD, Xu et al. 2020, https://arxiv.org/abs/2006.07114, from a teacher whose self-supervision
    head `sskd-teacher` trained. Every image is seen four times, turned by 0°, 90°, 180° and 270°,
    each time with a crop of its own. With z the outputs for plain images, z' for turned ones, and A
    the cosines of turned images with plain ones behind a head of two linear layers,

    .. math::
        L = a L_{task}(z_s) + b \, KL_\tau(z_t \| z_s) + c \, KL_\tau^{M_1}(z'_t \| z'_s)
            + d \, KL_{\tau_A}^{M_2}(A_t \| A_s)

    Each divergence carries the square of its temperature. The masks M drop what the teacher gets
    most wrong: in a row of :math:`z'_t` the right answer is the label, in one of :math:`A_t` the
    image that was turned. All rows with the right answer first count, and of the others the given
    fraction whose right answer ranks best.

    Defaults are those of the authors' code. Its images are mirrored once for all four views; here
    each view is mirrored by itself. Labels train plain images alone.

    Args:
        student: a network; its last tap, pooled, is compared.
        teacher: trained by `sskd-teacher`.
        task: what the labels mean; one class an image.
        supervised_weight: weight a ≥ 0 of the supervised loss.
        soft_weight: weight b ≥ 0 of the soft loss of plain images.
        turned_weight: weight c ≥ 0 of the soft loss of turned images.
        similarity_weight: weight d ≥ 0 of the similarities' loss.
        temperature: τ > 0 of the soft losses.
        similarity_temperature: τ_A > 0 of the similarities.
        turned_fraction: of the turned images that the teacher gets wrong, in [0, 1]; these count.
        similarity_fraction: the same for the similarities.
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(views=TURNS, batch=2, image_labels=True, single_label=True, teacher_scores=True)
    teacher_method = "sskd-teacher"

    def __init__(
        self,
        student: Taps,
        teacher: Frozen,
        task: Task,
        *,
        supervised_weight: float = 0.1,
        soft_weight: float = 0.9,
        turned_weight: float = 2.7,
        similarity_weight: float = 10.0,
        temperature: float = 4.0,
        similarity_temperature: float = 0.5,
        turned_fraction: float = 1.0,
        similarity_fraction: float = 0.75,
    ) -> None:
        super().__init__()
        check_turnable(task)
        for fraction in (turned_fraction, similarity_fraction):
            if not 0 <= fraction <= 1:
                raise ConfigError(
                    f"turned_fraction and similarity_fraction are in 0 … 1, not {fraction}"
                )
        self.student, self.teacher, self.task = student, teacher, task
        self.weights = (supervised_weight, soft_weight, turned_weight, similarity_weight)
        self.temperature, self.similarity_temperature = temperature, similarity_temperature
        self.turned_fraction, self.similarity_fraction = turned_fraction, similarity_fraction
        if not any(self.weights):
            raise ConfigError("sskd needs a loss: give one of its four weights a value above 0")
        width = list(student.shapes.values())[-1][0]
        self.similarity = ViewSimilarity(width) if similarity_weight else None

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft`, `turned` and `similarity`, those that have a weight.

        Monitored are the fractions of rows in which the teacher is right.
        """
        inputs, count = turned((batch.inputs, *batch.views)), len(batch.inputs)
        outputs, _, pooled = self.student.forward_pooled(inputs)
        with torch.no_grad():
            teacher_outputs, teacher_similarities = self.teacher.network.knowledge(inputs)  # type: ignore[operator]
        plain, others = outputs.split([count, len(outputs) - count])
        teacher_plain, teacher_others = teacher_outputs.split([count, len(outputs) - count])
        supervised_weight, soft_weight, turned_weight, similarity_weight = self.weights
        losses, monitors = {}, {}
        if supervised_weight:
            losses["task"] = supervised_weight * self.task.loss(plain, batch.targets)
        if soft_weight:
            losses["soft"] = soft_weight * kl_divergence(plain, teacher_plain, self.temperature)
        if turned_weight:
            ranks = answer_ranks(teacher_others, batch.targets.repeat(TURNS - 1))
            chosen = best_ranked(ranks, self.turned_fraction)
            divergence = kl_divergence(others, teacher_others, self.temperature, chosen)
            losses["turned"], monitors["turned/right"] = turned_weight * divergence, right(ranks)
        if self.similarity:
            own = torch.arange(count, device=inputs.device).repeat(TURNS - 1)
            ranks = answer_ranks(teacher_similarities, own)
            chosen = best_ranked(ranks, self.similarity_fraction)
            divergence = kl_divergence(
                self.similarity(pooled), teacher_similarities, self.similarity_temperature, chosen
            )
            losses["similarity"] = similarity_weight * divergence
            monitors["similarity/right"] = right(ranks)
        return StepOutput(plain, losses, monitors)


def right(ranks: Tensor) -> Tensor:
    """The fraction of rows whose right answer comes first, 0-d."""
    return (ranks == 0).float().mean()


def answer_ranks(scores: Tensor, answers: Tensor) -> Tensor:
    """How many scores of each row (N, K) are above that of its right answer (N,)."""
    return (scores > scores.gather(1, answers[:, None])).sum(1)


def best_ranked(ranks: Tensor, fraction: float) -> Tensor:
    """1.0 for all rows of rank 0 and for a fraction of the others, the best first; else 0.0. (N,)

    Of rows of one rank the first come first.
    """
    places = ranks.argsort(stable=True).argsort()
    right = (ranks == 0).sum()
    kept = right + (fraction * (len(ranks) - right)).floor()
    return (places < kept).float()
