from collections.abc import Mapping, Sequence
from typing import Literal

import torch
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
from ..core.keyed_random import purpose
from ..functional.attention import pooled_to
from ..functional.gradient_routing import scale_grad
from ..modules.information_checks import chance_warnings, draw_shift, without_negatives
from ..modules.mutual_information import MutualInformationLoss, jensen_shannon
from ..modules.pairs import Shape, check_layouts
from ..taps import Taps, Teacher

_NEGATIVES = purpose("mimkd.negatives")


@METHODS.add("mimkd")
class MutualInformationMaximization(Method):
    r"""Maximize a bound on mutual information of student and teacher: global, local and by stage.

    A reconstruction from the abstract of Shrivastava et al. 2021, "Estimating and Maximizing
    Mutual Information for Knowledge Distillation", https://arxiv.org/abs/2110.15946. What the
    abstract says: a contrastive objective estimates and at the same time maximizes a lower bound on
    the mutual information between local and global features of a teacher and a student (its first
    version: intermediate and global ones); the two networks may be of any structure; ShuffleNetV2
    on CIFAR-100 rises from 69.8 to 74.55 % under a ResNet-50, and ResNet-18 on ImageNet from 68.88
    to 70.32 % under a ResNet-34. No code is public. All else is chosen here, after Deep InfoMax
    (https://arxiv.org/abs/1808.06670) and MUSE (https://arxiv.org/abs/2110.12606):

    .. math::
        L = L_{task} + a\,G(\bar s, \bar t) + b\,L(s, \bar t) + c \sum_k F(s_k, t_{j(k)})
            + d\,L_{soft}

    G, L and F are Jensen-Shannon losses (MUSE, Eq. 5), each with a critic of its own: G compares
    the pooled last features, L each cell of the student's last map with the teacher's pooled one, F
    each cell of a middle stage with the teacher's cell at the same place, after the larger of both
    maps was pooled to the size of the smaller. A critic encodes both sides (a linear layer, for G
    and L with two more beside it), normalizes them, takes off their mean over the images and
    takes a dot product over the root of its width. Without the centering a common part of all codes
    moves all scores at once, and the terms rise to 8 and more in the first steps before they fall.
    All other images of the pass are negatives.

    Critics and student step together on the sum; nothing reaches the teacher. Middle stages are the
    student's taps but the first and the last (of two taps, the first); each goes with the teacher's
    tap that has as many cells, else the next fewer, and of several such taps that at the likest
    depth. Choose them by the taps.

    Args:
        student: a network whose middle taps and last one are compared with the teacher's.
        teacher: a trained network with any number of taps.
        task: what the labels mean.
        global_weight: weight a of `global` in the student's gradient alone. Chosen here.
        local_weight: weight b of the term `local`, likewise.
        feature_weight: weight c of each term `feature/k`, k the student's tap, likewise.
        soft_weight: weight d of the soft loss on logits; none by default, as in the abstract.
        temperature: of the soft loss; 4 as in the CRD benchmark.
        critic: "dot" (as above), or one of MUSE's: "separable" (all pairs for G and L, one other
            image for F) or "concat" (1×1 convolutions, one other image).
        critic_width: channels of the codes of G and L, 2 or more; Deep InfoMax has 512 to 2048.
        feature_critic_width: channels of the codes of F, 2 or more.
        feature_negatives: F's negatives: other images at the "same" cell or at "all" cells, which
            takes as many times the memory as there are cells and wants critic "dot".
    """

    kind = "offline"
    provenance = Provenance.ABSTRACT
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        global_weight: float = 0.5,
        local_weight: float = 0.5,
        feature_weight: float = 0.5,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
        critic: Literal["dot", "separable", "concat"] = "dot",
        critic_width: int = 512,
        feature_critic_width: int = 128,
        feature_negatives: Literal["same", "all"] = "same",
    ) -> None:
        super().__init__()
        if feature_negatives == "all" and critic != "dot":
            raise ConfigError(
                f"feature_negatives='all' compares all cells, which critic='{critic}' cannot "
                "afford; use critic='dot'"
            )
        self.student, self.teacher, self.task = student, teacher, task
        self.soft_weight, self.temperature = soft_weight, temperature
        self.needs = Needs(batch=2, teacher_scores=bool(soft_weight))
        self.weights = {"global": global_weight, "local": local_weight, "feature": feature_weight}
        shapes = list(student.shapes.values()), list(teacher.shapes.values())
        pairs = stage_pairs(*shapes) if feature_weight else []
        for i, j in pairs:
            check_layouts(shapes[0][i], shapes[1][j])
        self.stages = {f"feature/{i + 1}": (i, j) for i, j in pairs}
        taps = {"global": (-1, -1), "local": (-1, -1)} | self.stages
        channels = {name: (shapes[0][i][0], shapes[1][j][0]) for name, (i, j) in taps.items()}
        self.critics = nn.ModuleDict(
            {
                name: critic_loss(
                    *channels_of_both,
                    critic,
                    feature_critic_width if name in self.stages else critic_width,
                    cellwise=name in self.stages,
                    all_cells=feature_negatives == "all",
                )
                for name, channels_of_both in channels.items()
                if self.weights[name.split("/")[0]]
            }
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft`, `global`, `local` and `feature/k`, as far as they have a weight."""
        shift = draw_shift(_NEGATIVES, len(batch.inputs), progress)
        outputs, features, vector = self.student.forward_pooled(batch.inputs)
        teacher_outputs, teacher_features, teacher_vector = self.teacher.forward_pooled(
            batch.inputs
        )
        losses = {"task": self.task.loss(outputs, batch.targets)}
        if self.soft_weight:
            mask = self.task.valid_mask(batch.targets)
            soft_loss = self.task.soft_loss(outputs, teacher_outputs, self.temperature, mask=mask)
            losses["soft"] = self.soft_weight * soft_loss
        maps = list(features.values()), list(teacher_features.values())
        views = self._views(*maps, vector, teacher_vector)
        for name, critic in self.critics.items():
            x, target = views[name]
            x = scale_grad(x, self.weights[name.split("/")[0]])  # critics learn at their full rate
            losses[name] = critic(x, target, shift)
        return StepOutput(outputs, losses, {n: losses[n].detach() for n in self.critics})

    def _views(
        self,
        student: list[Tensor],
        teacher: list[Tensor],
        student_vector: Tensor,
        teacher_vector: Tensor,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """What each term compares: student (B, C, h, w), teacher (B, D, h, w) or (B, D, 1, 1)."""
        vectors = student_vector[:, :, None, None], teacher_vector[:, :, None, None]
        views = {"global": vectors, "local": (student[-1], vectors[1])}
        for name, (i, j) in self.stages.items():
            views[name] = (pooled_to(student[i], teacher[j]), pooled_to(teacher[j], student[i]))
        return views

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Warnings of terms at chance, whose critics have found nothing that is shared."""
        return chance_warnings({n: value for n, value in monitors.items() if n in self.critics})


def stage_pairs(student: Sequence[Shape], teacher: Sequence[Shape]) -> list[tuple[int, int]]:
    """Indices of the taps that are compared, from the (C, H, W) at the taps of both networks."""
    cells = [h * w for _, h, w in teacher]

    def depth(tap: int, taps: Sequence[object]) -> float:
        return tap / max(len(taps) - 1, 1)

    def teacher_tap(tap: int) -> int:
        student_cells = student[tap][1] * student[tap][2]
        size = max((n for n in cells if n <= student_cells), default=min(cells))
        level = depth(tap, student)
        candidates = [j for j, n in enumerate(cells) if n == size]
        return min(candidates, key=lambda j: abs(depth(j, teacher) - level))

    taps = range(len(student))
    return [(i, teacher_tap(i)) for i in (taps[1:-1] or taps[:1])]


def critic_loss(
    student_channels: int,
    teacher_channels: int,
    critic: str,
    width: int,
    *,
    cellwise: bool,
    all_cells: bool,
) -> nn.Module:
    """The loss of one term, of cells with cells if `cellwise`."""
    channels = (student_channels, teacher_channels)
    if critic == "dot":
        return DotLoss(*channels, width, hidden=not cellwise, all_cells=cellwise and all_cells)
    negatives = "roll" if cellwise else None
    return CellLoss(
        MutualInformationLoss(*channels, critic=critic, critic_width=width, negatives=negatives)
    )


class DotLoss(nn.Module):
    """The Jensen-Shannon loss of a scaled dot product of encoded cells, over all pairs of images.

    Args:
        student_channels, teacher_channels: of the maps.
        width: of the codes.
        hidden: whether the encoders have two layers beside the linear one.
        all_cells: compare a cell with all cells of other images, not only with that at its place.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        width: int,
        *,
        hidden: bool,
        all_cells: bool = False,
    ) -> None:
        super().__init__()
        self.encode_student = Encoder(student_channels, width, hidden=hidden)
        self.encode_teacher = Encoder(teacher_channels, width, hidden=hidden)
        self.width, self.all_cells = width, all_cells

    def forward(self, student: Tensor, teacher: Tensor, shift: Tensor) -> Tensor:
        """(B, C, h, w) and (B, D, h, w) or (B, D, 1, 1) -> 0-d; `shift` is for other critics."""
        if (chance := without_negatives(student)) is not None:
            return chance
        student_codes = self.encode_student(_cells(student)) / self.width**0.5  # (B, N, U)
        teacher_codes = self.encode_teacher(_cells(teacher))  # (B, N or 1, U)
        positive = (student_codes * teacher_codes).sum(-1)  # (B, N)
        same_image = torch.eye(len(positive), dtype=torch.bool, device=positive.device)
        pairs = "ipu,jqu->ipqj" if self.all_cells else "ipu,jpu->ipj"
        scores = torch.einsum(pairs, student_codes, teacher_codes)
        same_image = same_image[:, None, None] if self.all_cells else same_image[:, None]
        return jensen_shannon(positive, scores.masked_fill(same_image, -torch.inf))


class Encoder(nn.Module):
    """Codes of cells: a linear layer, two layers parallel to it, normalized and centered.

    Deep InfoMax's encoder without its batch norm. The linear layer matters: with two plain layers
    alone both sides start near a saddle and the terms stay at chance.

    Args:
        channels: of a cell.
        width: of a code.
        hidden: whether the two layers are there.
    """

    def __init__(self, channels: int, width: int, *, hidden: bool) -> None:
        super().__init__()
        self.shortcut = nn.Linear(channels, width)
        self.layers = (
            nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
            if hidden
            else None
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, U), each code of length √U before the centering."""
        code = self.shortcut(x) if self.layers is None else self.shortcut(x) + self.layers(x)
        out: Tensor = self.norm(code)
        return out - out.mean(0)


class CellLoss(nn.Module):
    """A MUSE critic's loss of a map with a vector or, cell by cell, with another map.

    Args:
        critic: a `MutualInformationLoss`, with rolled negatives if it is to compare cells.
    """

    def __init__(self, critic: MutualInformationLoss) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, student: Tensor, teacher: Tensor, shift: Tensor) -> Tensor:
        """As in `DotLoss`; where cells meet cells, another image's cell at the same place."""
        if (chance := without_negatives(student)) is not None:
            return chance
        cells = teacher.shape[-2:].numel()
        if cells > 1:  # an image's cells follow one another
            shift = shift * cells
            student, teacher = (
                _cells(x).flatten(0, 1)[..., None, None] for x in (student, teacher)
            )
        loss: Tensor = self.critic(student, teacher.flatten(1), shift).loss
        return loss


def _cells(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C)."""
    return x.flatten(2).transpose(1, 2)
