from typing import Literal, NamedTuple

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
from ..functional.gradient_routing import reverse_grad
from ..functional.mixing import batch_permutation, beta, mixup
from ..modules.discriminators import Discriminator
from ..taps import Taps
from ..taps.fx_split import reinitialized_copy, split_at

_RATIO, _PARTNERS = purpose("mixskd.ratio"), purpose("mixskd.partners")


@METHODS.add("mixskd")
class MixSelfDistillation(Method):
    r"""Mutual distillation between mixup images and interpolated outputs of their source images.

    MixSKD, Yang et al. 2022, https://arxiv.org/abs/2208.05768, and its authors' code
    (winycg/Self-KD-Lib). Images are mixed, :math:`\tilde x = \lambda x + (1 - \lambda) x'` with one
    :math:`\lambda \sim Beta(a, a)` a step, and pass the network together with the plain ones, so
    that batch norm sees both. Behind every tap but the last hangs a branch: fresh copies of all
    that follows the tap. So T branches, the last one the student itself, have outputs z and last
    maps f of one size. A tilde marks the outputs and maps of a mixed image, a bar the mixture, with
    the same λ, of those of its two images. A self-teacher, a 1×1 convolution and a head on the T
    maps concatenated, has outputs :math:`\bar h` for the maps :math:`\bar f` and :math:`\tilde h`
    for :math:`\tilde f`. With the supervised loss :math:`L_{mix} = \lambda L_{task}(\cdot, y) + (1
    - \lambda) L_{task}(\cdot, y')`

    .. math::
        L = & \sum_{k \le T} \left[ L_{task}(z_k) + L_{mix}(\tilde z_k) \right]
            + L_{mix}(\bar h) + L_{mix}(\tilde h) \\
            & + \sum_{k < T} \left[ L_{soft}(\bar z_k, sg\, \tilde z_k)
            + L_{soft}(\tilde z_k, sg\, \bar z_k) \right]
            + L_{soft}(\bar z_T, sg\, \tilde h) + L_{soft}(\tilde z_T, sg\, \bar h) \\
            & + \sum_{k \le T} \left[ \operatorname{mean} (\bar f_k - \tilde f_k)^2
            + L_{dis}(\bar f_k, \tilde f_k) \right]

    Both maps of the squared difference learn. :math:`L_{dis}` is the binary cross-entropy of a
    discriminator that tells the two kinds of map apart; the maps learn to deceive it, by reversed
    gradients.

    The code mixes outputs before the softmax, where the paper speaks of probabilities; we follow
    the code. Beyond that its two scripts differ. The one for ImageNet sums all terms. The one for
    CIFAR computes the mixed and the self-teacher's supervised terms and leaves them out of the sum,
    so that its self-teacher stays as random as it was born. In neither does an optimizer see the
    discriminators, which are in a plain list, and no gradient is reversed, so that the maps
    learn to be told apart by random networks. `variant="released"` is what the CIFAR script
    optimizes; "paper" is what is written above, with discriminators that learn. The code also
    reports the best of all epochs and branches, where only the student counts here.

    Args:
        student: a network with two taps or more that can be cut at all of them.
        task: what the labels mean; its outputs are class scores.
        variant: "paper", all terms, or "released", as the public CIFAR script: without the
            supervised terms of mixtures and self-teacher, this one and the discriminators random
            and fixed, gradients not reversed.
        mixup_alpha: a > 0 of the Beta distribution; the code's 0.4 for CIFAR (0.2 for ImageNet).
        temperature: of the soft terms; the paper's 3.
        soft_weight: weight of the soft terms; 0 leaves them out. This and the next two are 1 in the
            code.
        feature_weight: weight of the squared differences of maps; 0 leaves them out.
        adversarial_weight: weight of the discriminators' terms; 0 leaves them out.
    """

    kind = "self"
    provenance = Provenance.CODE
    needs = Needs(batch=2, class_scores=True)

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        variant: Literal["paper", "released"] = "paper",
        mixup_alpha: float = 0.4,
        temperature: float = 3.0,
        soft_weight: float = 1.0,
        feature_weight: float = 1.0,
        adversarial_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if len(student.names) < 2:
            raise ConfigError(
                "a branch hangs on every tap but the last, and there is only one tap; "
                "`selfdistill taps MODEL` lists the modules to tap"
            )
        if mixup_alpha <= 0:
            raise ConfigError(
                f"mixup_alpha, the Beta distribution's a, is above 0 and not {mixup_alpha}"
            )
        self.student, self.task, self.variant = student, task, variant
        self.mixup_alpha, self.temperature = mixup_alpha, temperature
        self.soft_weight, self.feature_weight = soft_weight, feature_weight
        self.adversarial_weight = adversarial_weight
        _, *stages, last = split_at(student.network, student.names)
        self.stages = nn.ModuleList(
            reinitialized_copy(nn.Sequential(*stages[i:])) for i in range(len(stages))
        )
        self.heads = nn.ModuleList(reinitialized_copy(last) for _ in stages)
        count, channels = len(student.names), student.shapes[student.names[-1]][0]
        conv = nn.Conv2d(count * channels, channels, 1, bias=False)
        discriminators = [
            Discriminator(channels, outputs=2) for _ in range(count if adversarial_weight else 0)
        ]
        self.self_teacher: nn.Module = nn.Sequential(conv, task.head(channels))
        self.discriminators = nn.ModuleList(discriminators)
        if variant == "released":
            # never trained, but the student learns by them: checkpoints must keep them
            self.self_teacher = Frozen(self.self_teacher, saved=True)
            self.discriminators = nn.ModuleList(Frozen(d, saved=True) for d in discriminators)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `mixed`, `feature` and `adversarial` of the student and, /k, of branch k.

        Further `self_teacher`, `branch/k`, the mutual distillation of branch k's two outputs, and
        `soft`, that of the student from the self-teacher.
        """
        keys = (progress.seed, progress.step)
        partners = batch_permutation(_PARTNERS, *keys, batch.indices)
        mixing = Mixing(partners, beta(self.mixup_alpha, _RATIO, *keys, batch.indices[0]))
        outputs, maps = self._branches(torch.cat([batch.inputs, mixing(batch.inputs)]))
        scores, features = [mixing.pair(z) for z in outputs], [mixing.pair(f) for f in maps]
        levels = [torch.cat(sides, 1) for sides in zip(*features, strict=True)]  # (B, T·C, h, w)
        teacher = Pair(*self.self_teacher(torch.cat(levels)).chunk(2))

        def mixed_loss(out: Tensor) -> Tensor:
            partner_targets = batch.targets[partners]
            losses = self.task.loss(out, batch.targets), self.task.loss(out, partner_targets)
            return mixing.ratio * losses[0] + (1 - mixing.ratio) * losses[1]

        plain = [z.chunk(2)[0] for z in outputs]
        losses = {_name("task", k): self.task.loss(z, batch.targets) for k, z in enumerate(plain)}
        if self.variant == "paper":
            losses |= {_name("mixed", k): mixed_loss(z.of_mixture) for k, z in enumerate(scores)}
            losses["self_teacher"] = mixed_loss(teacher.mixture) + mixed_loss(teacher.of_mixture)
        if self.soft_weight:
            mask = self.task.valid_mask(batch.targets)
            mask = mask if mask is None else mask | mask[partners]  # a label of either image counts
            losses |= self._soft_losses(scores, teacher, mask)
        return StepOutput(plain[0], losses | self._map_losses(features))

    def _branches(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs and last maps (B, C, h, w) of the student and of branches 1, 2, …"""
        out, features = self.student.forward_features(inputs, raw=True)
        *shallow, last = features.values()
        ends = [stages(x) for stages, x in zip(self.stages, shallow, strict=True)]
        outputs = [out, *(head(x) for head, x in zip(self.heads, ends, strict=True))]
        return outputs, [self.student.as_map(x, inputs) for x in (last, *ends)]

    def _soft_losses(
        self, scores: list["Pair"], teacher: "Pair", mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Each branch from its other side, the student from the self-teacher's other side."""
        losses = {}
        for k, z in enumerate(scores):
            target = z if k else teacher
            # crossed: the mixture of the outputs learns from the output of the mixture
            mixture = self._soft_loss(z.mixture, target.of_mixture, mask)
            of_mixture = self._soft_loss(z.of_mixture, target.mixture, mask)
            losses[_name("branch", k) if k else "soft"] = self.soft_weight * (mixture + of_mixture)
        return losses

    def _soft_loss(self, out: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.task.soft_loss(out, target.detach(), self.temperature, mask=mask)

    def _map_losses(self, features: list["Pair"]) -> dict[str, Tensor]:
        """The squared differences of both sides' maps, and the discriminators' losses."""
        losses = {}
        for k, (mixture, of_mixture) in enumerate(features):
            if self.feature_weight:
                gap = F.mse_loss(mixture, of_mixture)
                losses[_name("feature", k)] = self.feature_weight * gap
        pairs = zip(self.discriminators, features, strict=False)
        for k, (discriminator, maps) in enumerate(pairs):
            both = torch.cat(maps)
            scores = discriminator(reverse_grad(both) if self.variant == "paper" else both).float()
            sides = torch.eye(2, device=scores.device).repeat_interleave(len(both) // 2, 0)
            loss = F.binary_cross_entropy_with_logits(scores, sides)
            losses[_name("adversarial", k)] = self.adversarial_weight * loss
        return losses


class Pair(NamedTuple):
    """The mixture of two images' outputs (or maps), and the output of their mixture."""

    mixture: Tensor
    of_mixture: Tensor


class Mixing(NamedTuple):
    """How the images of a batch are mixed.

    Attributes:
        partners: indices of the images mixed in, (B,) int64.
        ratio: weight of the image itself, 0-d.
    """

    partners: Tensor
    ratio: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(B, ...), mixed."""
        return mixup(x, self.partners, self.ratio)

    def pair(self, outputs: Tensor) -> Pair:
        """Both sides, in fp32, from the outputs (2B, ...) of the images and then the mixtures."""
        images, mixtures = outputs.float().chunk(2)
        return Pair(self(images), mixtures)


def _name(term: str, branch: int) -> str:
    return f"{term}/{branch}" if branch else term
