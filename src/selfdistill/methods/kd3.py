import copy
import math
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
from ..core.keyed_random import purpose
from ..functional.attention import pooled_to
from ..functional.mixing import batch_permutation, beta
from ..models.layers import conv_bn
from ..modules.composite import CompositeNetwork
from ..taps import Taps, Teacher, as_map
from ..taps.fx_split import split_at

_RATIO, _PARTNERS = purpose("kd3.ratio"), purpose("kd3.partners")
_CHOSEN = "chosen_fraction"
_FEW = 0.05  # of the extra images


@METHODS.add("kd3")
class DifferentDistributionsDistillation(Method):
    r"""Align a student with a teacher on images without labels that both are sure about.

    Tang et al. 2023, "Distribution Shift Matters for Knowledge Distillation with Webly Collected
    Images", https://arxiv.org/abs/2307.11469, and its code. No image with a label is read: the
    batches are of the extra images (`--extra`), and `--data` names the classes and the images by
    which the run is evaluated. With :math:`F_s, F_t` the last maps, r a transfer block that stays,
    and the teacher's own linear classifier W, which gives the student's scores
    :math:`z_s = W\, pool\, r(F_s)`,

    .. math:: L = \overline{w (r(F_s) - F_t)^2} + \beta L_{contrast}(e(x), e(\tilde x)),
        \quad w = sg\, \sigma(\|z_s - z_t\|_2)

    where the bar is a mean over images, channels and places, :math:`L_{contrast}` is SimCLR's
    NT-Xent, and e(x) the normalized linear embedding of the student's pooled :math:`F_s`.
    :math:`\tilde x` is MixDistribution of x: every channel of an image, normalized to mean 0 and
    deviation 1 over its pixels, is given mean and deviation between its own and those of another
    image of the batch, by a share λ ~ Beta(a, a) of each image.

    Before each epoch all extra images are scored, not augmented. With
    :math:`p = softmax(\alpha z_t + (1 - \alpha) z_s)`, n_c the number of images
    whose likeliest class is c and :math:`r_c = n_c / \max_k n_k`, kept are those whose likeliest
    class c has a probability above :math:`\theta r_c / (2 - r_c)`. The share
    :math:`\alpha = 1 - e^{-5 (3 t / 2 - 1)^2}` falls with the fraction t of the run, and is 0 after
    its first half. An epoch has as many steps as it takes to see all extra images once; where
    fewer are kept they are seen more often.

    What is deployed is the student up to its last map, r, and W; the student's own classifier
    learns nothing and is left out. The code's second contrastive term, of the teacher's features,
    trains nothing but its own embedding, and is left out, too. The code scores augmented images
    and reports the best epoch.

    Args:
        student: a network that can be cut at its last tap.
        teacher: a trained network with the task's classes, which ends with a linear layer on the
            mean over places of its last feature.
        task: what the labels mean; one class an image.
        contrastive_weight: weight β ≥ 0 of the contrastive term; the code's 0.001. 0 leaves it and
            the second pass out.
        contrastive_temperature: its temperature τ > 0; the code's 0.3.
        embedding_width: of e.
        mixing_concentration: a > 0 of the mixture's Beta distribution; the code's 0.1.
        confidence: θ in [0, 1], the threshold of the most frequent class; the code's 0.95. 0 keeps
            all images.
    """

    kind = "offline"
    provenance = Provenance.CODE
    needs = Needs(
        batch=2,
        image_labels=True,
        teacher_scores=True,
        extra=True,
        unlabeled=True,
        chosen_extra=True,
    )
    composite = True
    chosen_fraction: Tensor

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        contrastive_weight: float = 0.001,
        contrastive_temperature: float = 0.3,
        embedding_width: int = 128,
        mixing_concentration: float = 0.1,
        confidence: float = 0.95,
    ) -> None:
        super().__init__()
        if not 0 <= confidence <= 1:
            raise ConfigError(
                f"confidence={confidence:g} is a probability between 0 and 1; the default is 0.95"
            )
        if min(contrastive_temperature, mixing_concentration) <= 0:
            raise ConfigError(
                "contrastive_temperature and mixing_concentration must be above 0; the defaults "
                "are 0.3 and 0.1"
            )
        self.teacher_tap = teacher.names[-1]
        width = student.shapes[student.names[-1]][0]
        classifier = linear_classifier(teacher, task)
        self.student = TransferredNetwork(student, classifier)
        self.teacher, self.task = teacher, task
        self.contrastive_weight, self.temperature = contrastive_weight, contrastive_temperature
        self.concentration, self.confidence = mixing_concentration, confidence
        self.embedding = nn.Linear(width, embedding_width) if contrastive_weight else None
        self.register_buffer(_CHOSEN, torch.ones(()))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`feature`, and `contrastive` if it has a weight; monitors the fraction of images kept."""
        scores, features = self.teacher.forward_features(batch.inputs)
        plain = self.student.last_map(batch.inputs)
        transferred = self.student.transfer(plain)
        outputs = self.student.classify(transferred)
        weight = (outputs.detach().float() - scores.float()).norm(dim=1).sigmoid()  # (B,)
        target = features[self.teacher_tap]
        gap = pooled_to(transferred, target).float() - pooled_to(target, transferred).float()
        losses = {"feature": (weight[:, None, None, None] * gap.square()).mean()}
        if self.embedding is not None:
            mixed = self.student.last_map(self.mixed(batch, progress))
            embeddings = [self.embedding(x.mean((2, 3))) for x in (plain, mixed)]
            contrastive = nt_xent(embeddings[0], embeddings[1], self.temperature)
            losses["contrastive"] = self.contrastive_weight * contrastive
        return StepOutput(outputs, losses, {_CHOSEN: self.chosen_fraction.clone()})

    def mixed(self, batch: Batch, progress: Progress) -> Tensor:
        """MixDistribution of the batch with its own permutation."""
        keys = progress.seed, progress.step, batch.indices
        ratio = beta(self.concentration, _RATIO, *keys)
        return mix_distribution(batch.inputs, batch_permutation(_PARTNERS, *keys), ratio)

    def score_extra(self, images: Tensor) -> Tensor:
        """(B, 2, K): the teacher's scores and the student's."""
        return torch.stack([self.teacher(images).float(), self.student(images).float()], 1)

    def choose_extra(self, scores: Tensor, progress: Progress) -> Tensor:
        """Those that are surer than their class's threshold; all where none is."""
        share = teacher_share(float(progress.fraction))
        probabilities = (share * scores[:, 0] + (1 - share) * scores[:, 1]).softmax(1)
        sure, labels = probabilities.max(1)
        counts = labels.bincount(minlength=probabilities.shape[1])
        chosen = (sure > class_thresholds(counts, self.confidence)[labels]).nonzero().flatten()
        self.chosen_fraction.fill_(len(chosen) / len(scores))
        return chosen if len(chosen) else torch.arange(len(scores))

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Extra images that are nearly all left out."""
        if (fraction := monitors.get(_CHOSEN, 1.0)) >= _FEW:
            return {}
        return {
            _CHOSEN: f"{fraction:.1%} of the extra images are sure enough to be learned from; give "
            "images more like the teacher's, or lower confidence"
        }


class TransferredNetwork(CompositeNetwork):
    """A network up to its last tap, a transfer block, and the classifier of another network.

    Args:
        taps: the network; its modules are shared.
        classifier: (B, C) to scores, of the teacher; a frozen copy of it is saved with the run.
    """

    def __init__(self, taps: Taps, classifier: nn.Linear) -> None:
        super().__init__()
        name = taps.names[-1]
        self.trunk, _ = split_at(taps.network, [name])
        self.prefix_tokens = taps.prefix_tokens
        self.transfer = transfer_block(taps.shapes[name][0], classifier.in_features)
        # a copy, or loading a run would write into the teacher
        self.classifier = Frozen(copy.deepcopy(classifier), saved=True)
        self.cuts = ("trunk", "transfer")
        self.description = (
            f"{type(taps.network).__name__} up to its last stage, a transfer block and the "
            "teacher's classifier"
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to scores (B, K)."""
        return self.classify(self.transfer(self.last_map(x)))

    def last_map(self, x: Tensor) -> Tensor:
        """The network's map (B, C, h, w)."""
        return as_map(self.trunk(x), x.shape[2:], self.prefix_tokens)

    def classify(self, x: Tensor) -> Tensor:
        """Scores of a transferred map."""
        scores: Tensor = self.classifier(x.mean((2, 3)))
        return scores


def transfer_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """1×1, 3×3 and 1×1 convolutions, each with batch norm and ReLU, half as wide within."""
    half = max(1, out_channels // 2)
    return nn.Sequential(
        conv_bn(in_channels, half, 1), conv_bn(half, half, 3), conv_bn(half, out_channels, 1)
    )


def linear_classifier(teacher: Teacher, task: Task) -> nn.Linear:
    """The linear layer that a network ends with.

    Raises:
        ConfigError: its output is another function of its last feature.
    """
    linears = [module for module in teacher.modules() if isinstance(module, nn.Linear)]
    images = task.example.to(next((p.device for p in teacher.parameters()), task.example.device))
    with torch.no_grad():
        scores, features = teacher.forward_features(images)
        vector = features[teacher.names[-1]].mean((2, 3))
        if linears and linears[-1].in_features == vector.shape[1]:
            classified = linears[-1](vector)
            if classified.shape == scores.shape and torch.allclose(classified, scores, atol=1e-3):
                return linears[-1]
    name = type(cast(Taps, teacher.network).network).__name__
    raise ConfigError(
        f"the student is given its teacher's classifier, and the teacher, {name}, ends "
        f"with another than one linear layer on the mean of its feature at "
        f"'{teacher.names[-1]}'; take a convolutional teacher, or another method"
    )


def mix_distribution(x: Tensor, partners: Tensor, ratio: Tensor) -> Tensor:
    """Images (B, C, H, W) with statistics between their own and those of their partners.

    Args:
        x: normalized images.
        partners: index of the other image of each, (B,) int64.
        ratio: weight of an image's own statistics, (B,) in [0, 1].
    """
    mean = x.mean((2, 3), keepdim=True)
    deviation = (x.var((2, 3), correction=0, keepdim=True) + 1e-6).sqrt()
    own = ratio[:, None, None, None].to(x)
    mixed_mean = own * mean + (1 - own) * mean[partners]
    mixed_deviation = own * deviation + (1 - own) * deviation[partners]
    return (x - mean) / deviation * mixed_deviation + mixed_mean


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views' embeddings, (B, D) each (Chen et al. 2020, SimCLR, Eq. 1), in fp32."""
    both = F.normalize(torch.cat([a, b]).float())
    similarities = both @ both.T / temperature  # (2B, 2B)
    itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
    similarities = similarities.masked_fill(itself, -torch.inf)
    positives = torch.arange(len(both), device=both.device).roll(len(a))
    return F.cross_entropy(similarities, positives)


def teacher_share(fraction: float) -> float:
    """The weight α of the teacher's scores at a fraction of the run."""
    return 1 - math.exp(-5 * (1.5 * fraction - 1) ** 2) if fraction <= 0.5 else 0.0


def class_thresholds(counts: Tensor, confidence: float) -> Tensor:
    """The least probability of each class, (K,), from how many images it has."""
    ratio = counts / counts.max().clamp(min=1)
    return confidence * ratio / (2 - ratio)
