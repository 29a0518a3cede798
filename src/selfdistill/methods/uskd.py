import torch
import torch.nn.functional as F
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
from ..functional.divergence import soft_cross_entropy
from ..functional.labeled_class import at_label, without_label
from ..taps import Taps

_SMOOTHING = 0.1  # of the labels that the weak classifier learns


@METHODS.add("uskd")
class UniversalSelfDistillation(Method):
    r"""Make soft labels of the network's own confidence and of the rank of each class (USKD).

    Yang et al. 2023, https://arxiv.org/abs/2303.13005, from the public code. A linear classifier on
    the pooled feature before the last one, the weak logit w, learns the labels, smoothed by 0.1.
    With the probabilities p of the output, :math:`\hat p` those of the classes other than the label
    y, normalized among themselves, and a bar for the mean over a batch,

    .. math:: L = L_{task} - \alpha \, \overline{\left( 1 + p_y^2 - \overline{p_y^2} \right) \log
        p_y} - \beta \, \overline{\sum_{k \ne y} \zeta_k \log \hat p_k} + \mu \, CE(w, y)

    The parentheses are the soft label of the target class: images of which the network is surer
    count more. Those of the other classes follow Zipf's law, :math:`\zeta_k \propto 1 / r_k`, by
    the rank of each class, from 1 on, in the sum of both classifiers,

    .. math:: \frac{softmax(w)_k}{1 - softmax(w)_y} + \frac{\log p_k}{1 - \log p_y}

    No gradient flows into the soft labels. The logarithms of the second fraction are those of the
    code; the names of its variables suggest probabilities, as in the first one. We follow the code,
    whose figures are the published ones.

    Defaults are the code's for ImageNet; on CIFAR-100 it has α = β = μ = 0.1. Of a transformer it
    reads the class token in the middle of the blocks, we the mean of the tokens at the tap before
    the last. For mixtures of two labels it has two target classes; we refuse mixtures. The mean of
    :math:`p_y^2` is over the images of one pass and process.

    Args:
        student: a network with two taps or more.
        task: what the labels mean; each image has one class.
        target_class_weight: weight α ≥ 0 of the first soft term. 0 leaves it out.
        non_target_class_weight: weight β ≥ 0 of the second, that of the other classes. 0 leaves it
            out. Of two classes it has nothing to say.
        weak_weight: weight μ > 0 of the weak classifier's loss, which trains the network up to its
            tap, too.
    """

    kind = "self"
    provenance = Provenance.CODE
    needs = Needs(image_labels=True, single_label=True)

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        target_class_weight: float = 1.0,
        non_target_class_weight: float = 0.1,
        weak_weight: float = 0.005,
    ) -> None:
        super().__init__()
        if len(student.names) < 2:
            raise ConfigError(
                f"uskd reads the tap before the last, and there is {len(student.names)}; "
                "`selfdistill taps MODEL` lists the modules to tap"
            )
        if weak_weight <= 0:
            raise ConfigError(
                f"weak_weight={weak_weight:g} leaves the weak classifier untrained; give a value "
                "above 0"
            )
        self.student, self.task = student, task
        self.target_class_weight = target_class_weight
        self.non_target_class_weight = non_target_class_weight
        self.weak_weight = weak_weight
        self.tap = student.names[-2]
        self.weak_classifier = task.head(student.shapes[self.tap][0])

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `weak`, and `target` and `others` as far as they have a weight."""
        outputs, features = self.student.forward_features(batch.inputs)
        labels, weak = batch.targets, self.weak_classifier(features[self.tap]).float()
        weak_loss = F.cross_entropy(weak, labels, label_smoothing=_SMOOTHING)
        losses = {"task": self.task.loss(outputs, labels), "weak": self.weak_weight * weak_loss}
        if self.target_class_weight:
            losses["target"] = self.target_class_weight * target_class_loss(outputs, labels)
        if self.non_target_class_weight:
            soft_labels = without_label(zipf_weights(outputs, weak, labels), labels)
            soft_labels = soft_labels / soft_labels.sum(1, keepdim=True)
            loss = soft_cross_entropy(without_label(outputs, labels), soft_labels)
            losses["others"] = self.non_target_class_weight * loss
        return StepOutput(outputs, losses)


def target_class_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, K) with the labels (B,), weighted by the own confidence."""
    log_probability = at_label(outputs.float().log_softmax(1), labels)
    squared_confidence = (2 * log_probability.detach()).exp()
    soft_label = 1 + squared_confidence - squared_confidence.mean()
    return -(soft_label * log_probability).mean()


@torch.no_grad()
def zipf_weights(outputs: Tensor, weak: Tensor, labels: Tensor) -> Tensor:
    """1 / rank of each class by both classifiers, from their logits (B, K) and the labels (B,)."""
    weak_part, own_part = (
        values / (1 - at_label(values, labels)[:, None] + 1e-6)
        for values in (weak.softmax(1), outputs.float().log_softmax(1))
    )
    order = (weak_part + own_part).argsort(stable=True, dim=1, descending=True)
    return 1 / (order.argsort(1) + 1).float()
