from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Needs, Progress, Provenance, StepOutput, Task
from ..functional.places import pooled_to_size
from ..modules.feature_distillation import FeatureDistillation
from ..modules.pairs import paired_shapes
from ..taps import Taps, Teacher

_GRIDS = (4, 2, 1)


@METHODS.add("reviewkd")
class KnowledgeReview(FeatureDistillation):
    r"""Match each teacher stage with the student's stages from there on, fused by attention.

    ReviewKD, Chen et al. 2021, https://arxiv.org/abs/2104.09044, and its authors' code. The levels
    of a network are its stages and, the deepest one, its pooled last feature. From deep to shallow,
    a 1×1 convolution and batch norm bring the student's level i to one width, :math:`x_i`, which is
    fused with what came from the deeper level, enlarged to its size:

    .. math:: u_i = a_i \odot x_i + b_i \odot u_{i+1}, \quad
        (a_i, b_i) = \sigma \left( conv_{1 \times 1} [x_i, u_{i+1}] \right)

    where a and b have one value a position. A 3×3 convolution and batch norm make of :math:`u_i`,
    in the size of the teacher's level, what is matched with :math:`t_i`:

    .. math:: L = L_{task} + \min(1, f / w) \, \beta \sum_i HCL(conv_{3 \times 3}(u_i), t_i)

    with f the fraction of the run that is done. The hierarchical context loss HCL is a weighted
    mean of mean squared differences: of the maps as they are with weight 1, and of the maps
    averaged to 4×4, 2×2 and 1×1 cells, as far as they are larger, with 1/2, 1/4 and 1/8.

    All of this is as in the code but for two points. It reads the teacher's stages before their
    last ReLU; here they are read at the taps, which in most networks lie behind it (what is matched
    ends in a batch norm, and so could follow negative values). Its warm-up for CIFAR-100 goes up
    once an epoch, for 20 of 240; ours goes up once a step. For ImageNet it has none: set
    `warmup_fraction=0`.

    The authors choose β by the pair of networks: 5 for most on CIFAR-100, 8 from ResNet-32x4 to
    ShuffleNet-V2, 1 from ResNet-110 to ResNet-32 and 0.6 from ResNet-56 to ResNet-20; on ImageNet 1
    from ResNet-34 to ResNet-18 and 8 from ResNet-50 to MobileNet-V1. Their detectors have five maps
    of a pyramid as levels, of which the last takes the place of the pooled feature. Fusions are
    dropped after training.

    Args:
        student: the network.
        teacher: a trained network with as many taps as the student.
        task: what the labels mean.
        review_weight: weight β ≥ 0 of the review terms; see above. 0 leaves them out.
        fusion_width: the most channels of :math:`u_i`; they are as many as the student's last
            feature has, if those are fewer. The code's 512.
        warmup_fraction: fraction w of the run, in [0, 1), over which the review terms grow linearly
            to their weight. Above 0 the length of the run must be known.
        soft_weight: weight ≥ 0 of a soft loss towards the teacher's output; none in the paper, and
            an option of the code.
        temperature: τ > 0 of the soft loss; 4 in the code.
    """

    provenance = Provenance.CODE
    default_taps = "stages"
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        review_weight: float = 5.0,
        fusion_width: int = 512,
        warmup_fraction: float = 20 / 240,
        soft_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        if not 0 <= warmup_fraction < 1:
            raise ConfigError(
                f"warmup_fraction={warmup_fraction:g} is no fraction of a run; give 0 … 0.99"
            )
        if fusion_width < 1:
            raise ConfigError(f"fusion_width={fusion_width} is no number of channels; 512 is usual")
        self.review_weight, self.warmup_fraction = review_weight, warmup_fraction
        self.needs = self.needs._replace(run_length=bool(warmup_fraction))
        levels = [*paired_shapes(student, teacher)]
        last, teacher_last = levels[-1]
        levels.append(((last[0], 1, 1), (teacher_last[0], 1, 1)))
        width = min(fusion_width, last[0])
        self.fusions = nn.ModuleList(
            AttentionFusion(source[0], width, target[0], deepest=i == len(levels))
            for i, (source, target) in enumerate(levels, 1)
            if review_weight
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, and `review/i` of each level, the pooled one last."""
        outputs, features, pooled = self.student.forward_pooled(batch.inputs)
        reference, teacher_features, target = self.teacher.forward_pooled(batch.inputs)
        losses = self._output_losses(outputs, reference, batch)
        if not self.review_weight:
            return StepOutput(outputs, losses)
        weight: Tensor | float = self.review_weight
        if self.warmup_fraction:
            weight = weight * (progress.fraction / self.warmup_fraction).clamp(max=1)
        targets = [*teacher_features.values(), target[:, :, None, None]]
        sizes = [t.shape[-2:] for t in targets]
        reviewed = self.review([*features.values(), pooled[:, :, None, None]], sizes)
        for i, (x, t) in enumerate(zip(reviewed, targets, strict=True), 1):
            losses[f"review/{i}"] = weight * hierarchical_context_loss(x, t)
        return StepOutput(outputs, losses)

    def review(self, levels: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[Tensor]:
        """The student's levels (B, C, H, W), shallowest first, as they are matched at (H, W)s."""
        matched: list[Tensor] = []
        deeper: Tensor | None = None
        for fusion, x, size in zip(self.fusions[::-1], levels[::-1], sizes[::-1], strict=True):
            x, deeper = fusion(x, deeper, size)
            matched.insert(0, x)
        return matched


class AttentionFusion(nn.Module):
    """A level of the student fused with the deeper ones, and brought to the teacher's level.

    ReviewKD's attention-based fusion (ABF).

    Args:
        in_channels: of the student's level.
        width: channels of the fusion.
        out_channels: of the teacher's level.
        deepest: whether no level is deeper.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int, *, deepest: bool) -> None:
        super().__init__()
        self.reduce = _conv_bn(in_channels, width, 1)
        self.attention = None if deepest else nn.Conv2d(2 * width, 2, 1)
        self.expand = _conv_bn(width, out_channels, 3)

    def forward(
        self, x: Tensor, deeper: Tensor | None, size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """What is matched with the teacher's level, and the fusion for the next shallower one.

        Both have the (H, W) of the teacher's level.
        """
        x = self.reduce(x)
        if self.attention is not None and deeper is not None:
            deeper = _resized(deeper, x.shape[-2:])
            shares = self.attention(torch.cat([x, deeper], 1)).sigmoid()  # (B, 2, H, W)
            x = x * shares[:, :1] + deeper * shares[:, 1:]
        x = _resized(x, size)
        return self.expand(x), x


def _conv_bn(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)  # as in the code
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, tuple(size))


def hierarchical_context_loss(x: Tensor, target: Tensor) -> Tensor:
    """Weighted mean of the mean squared differences of maps (B, C, H, W) at falling sizes, fp32."""
    x, target = x.float(), target.float()
    size = tuple(x.shape[-2:])
    grids = [tuple(min(grid, side) for side in size) for grid in _GRIDS]
    total, weight, weights = (x - target).square().mean(), 1.0, 1.0
    for grid in grids:
        if grid == size:  # a side of fewer cells
            continue
        weight /= 2
        weights += weight
        difference = pooled_to_size(x, grid) - pooled_to_size(target, grid)
        total = total + weight * difference.square().mean()
    return total / weights
