from collections.abc import Sequence
from itertools import pairwise

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
from ..functional.divergence import soft_cross_entropy
from ..models.layers import init_kaiming
from ..taps import Taps, Teacher


@METHODS.add("ofa-kd")
class OneForAllDistillation(Method):
    r"""Project every stage into logits that match a teacher of any architecture, target enhanced.

    OFA-KD, Hao et al. 2023, https://arxiv.org/abs/2310.19444, and its authors' code. Features of
    unlike architectures do not compare, logits do: a branch behind each of the student's stages
    makes logits :math:`z_i` of its map, and branches and student learn from the teacher's output
    alone. With probabilities p at temperature τ, and y the label,

    .. math:: L = a L_{task}(z) + b \, OFA(z) + c \sum_i OFA(z_i)

    .. math:: OFA(z) = - \left( (1 + p^t_y)^\gamma - 1 \right) \log p_y
        - \sum_{k \ne y} (p^t_k)^\gamma \log p_k

    averaged over the images. At γ = 1 it is the soft cross-entropy, whose gradient is that of plain
    distillation; a larger γ counts the label more where the teacher is sure of it, and the other
    classes less. There is no factor τ². The form is the code's; the − 1 takes from a branch the
    supervised loss that the label's bare factor would be.

    A branch halves the map as often as there are stages behind it, each time by two depthwise
    separable convolutions with batch norm and ReLU, then pools it into a linear layer; behind the
    last stage there is a 1×1 convolution instead. Its last map has as many channels as the last
    feature of student or teacher, whichever has more. All of that is the code's for convolutional
    students. For transformers and mixers the code merges patches, has further transformer blocks,
    and reads the class token; here the patches' tokens are laid out as a map, and the same branches
    serve every student. The code names four stages of each network by hand; here they are the
    student's taps. Branches are dropped after training.

    Args:
        student: the network.
        teacher: a trained network for the same classes, of any architecture.
        task: what the labels mean; each image has one class.
        supervised_weight: weight a ≥ 0 of the supervised loss; 1 in the code. 0 leaves it out.
        soft_weight: weight b ≥ 0 of the student's own OFA loss; 1 in the code. 0 leaves it out.
        branch_weight: weight c ≥ 0 of the branches' OFA losses; 1 in the code. 0 leaves them out.
        modulation: γ > 0, one for all; the code's default is 1, its example on ImageNet has 1.5.
        temperature: τ > 0 of both sides; 1 in the code.
    """

    kind = "offline"
    provenance = Provenance.CODE
    default_taps = "stages"
    needs = Needs(batch=2, image_labels=True, teacher_scores=True)
    teacher_reads = "outputs"

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        supervised_weight: float = 1.0,
        soft_weight: float = 1.0,
        branch_weight: float = 1.0,
        modulation: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not (supervised_weight or soft_weight):
            raise ConfigError(
                "branches do not train the student's output: set supervised_weight or soft_weight "
                "above 0"
            )
        if modulation <= 0:
            raise ConfigError(
                f"modulation={modulation:g} is an exponent above 0; 1 is plain distillation"
            )
        self.student, self.teacher, self.task = student, teacher, task
        self.supervised_weight, self.soft_weight = supervised_weight, soft_weight
        self.branch_weight, self.modulation = branch_weight, modulation
        self.temperature = temperature
        width = max(network.shapes[network.names[-1]][0] for network in (student, teacher))
        stages = list(student.shapes.values())
        self.branches = nn.ModuleList(
            build_branch(shape[0], width, task, halvings=len(stages) - i)
            for i, shape in enumerate(stages, 1)
            if branch_weight
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` and `branch/i` of each stage, as far as they have a weight."""
        outputs, features = self.student.forward_features(batch.inputs)
        losses = {}
        if self.supervised_weight:
            losses["task"] = self.supervised_weight * self.task.loss(outputs, batch.targets)
        target = enhanced_target(
            self.teacher.outputs(batch), batch.targets, self.modulation, self.temperature
        )
        if self.soft_weight:
            losses["soft"] = self.soft_weight * self._loss(outputs, target)
        pairs = zip(self.branches, features.values(), strict=False)
        for i, (branch, x) in enumerate(pairs, 1):
            losses[f"branch/{i}"] = self.branch_weight * self._loss(branch(x), target)
        return StepOutput(outputs, losses)

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return soft_cross_entropy(logits.float() / self.temperature, target)


def enhanced_target(
    reference: Tensor, targets: Tensor, modulation: float, temperature: float
) -> Tensor:
    """Weight of each class's log-probability in the OFA loss, (B, K) fp32; they sum to no 1.

    Args:
        reference: the teacher's logits (B, K).
        targets: labels (B,), or mixtures (B, K), of which the largest part is the label.
        modulation: γ.
        temperature: τ.
    """
    labels = targets.argmax(1) if targets.is_floating_point() else targets
    probabilities = F.softmax(reference.float() / temperature, 1)
    label = F.one_hot(labels, reference.shape[1])
    return (probabilities + label) ** modulation - label


def build_branch(channels: int, width: int, task: Task, *, halvings: int) -> nn.Sequential:
    """From a stage's map (B, channels, H, W) to logits.

    Args:
        channels: of the map.
        width: channels of the map that is pooled.
        task: whose head it ends with.
        halvings: how often the map is halved; its channels double, but for the last time.
    """
    widths = [channels * 2**i for i in range(halvings)] + [width]
    layers: Sequence[nn.Module] = [separable_halving(*pair) for pair in pairwise(widths)]
    branch = nn.Sequential(*(layers or [nn.Conv2d(channels, width, 1)]), task.head(width))
    init_kaiming(branch)
    for module in branch.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    return branch


def separable_halving(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two depthwise separable convolutions, of which the first has stride 2, with BN and ReLU."""

    def separable(channels: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]

    return nn.Sequential(*separable(in_channels, 2), *separable(out_channels, 1))
