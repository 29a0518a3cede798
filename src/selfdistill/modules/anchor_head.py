"""YOLOv5's anchor-based detection: the head, its loss and the decoding of its boxes."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from ..core import ConfigError
from ..functional.boxes import binary_divergence, class_nms, complete_iou, focal_loss
from .detector_output import Detections

_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)  # YOLOv5's for COCO, in pixels of images of 640
_IMAGE = 640
_LEVEL_WEIGHTS = (4.0, 1.0, 0.4)  # of objectness on the fine, middle and coarse grid
_BOX_WEIGHT, _OBJECT_WEIGHT, _CLASS_WEIGHT = 0.05, 1.0, 0.5
_MAX_RATIO = 4.0  # of the sides of a box and an anchor that are matched
_NOMINAL_BATCH = 64  # images of a step in YOLOv5, whose loss is a sum over them


class AnchorOutput(NamedTuple):
    """Raw outputs of an anchor head for a batch.

    Attributes:
        maps: of each level, (B, A·(5 + K), h, w): x, y, width, height, objectness, classes.
        anchors: (levels, A, 2): widths and heights as fractions of the image's longer side.
        gamma: of the focal terms.
    """

    maps: tuple[Tensor, ...]
    anchors: Tensor
    gamma: float

    def loss(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """YOLOv5 5.0's loss, with focal terms for objectness and classes.

        A box is assigned to the anchors whose sides differ from its own by less than a factor of 4,
        in the cell of its center and the nearest neighbor on each axis. The terms are 1 − CIoU of
        the decoded box, objectness with that CIoU as its target, and the class; they are weighted
        by .05, 1 · H W / 640² and .5 · K / 80, and levels are averaged as if there were three.
        YOLOv5 sums over the images of a batch and takes 64 of them a step: that factor is a
        constant here, so the size of a batch does not scale the loss. As in YOLOv5 the terms of box
        and class are means over the boxes of a pass, so where it has few they weigh more. Each cell
        is assigned once to a box, and of two boxes at one anchor the larger CIoU is the target of
        objectness; YOLOv5 may count a cell twice, and takes the later box.
        """
        balance = (
            _LEVEL_WEIGHTS if len(self.maps) == len(_LEVEL_WEIGHTS) else (1.0,) * len(self.maps)
        )
        object_weight = _OBJECT_WEIGHT * size[0] * size[1] / _IMAGE**2
        class_weight = _CLASS_WEIGHT * self.classes / 80
        total = self.anchors.new_zeros(())
        for level, weight in zip(self._levels(), balance, strict=True):
            box, objectness, label = level.losses(targets, size, self.gamma)
            total = total + _BOX_WEIGHT * box + object_weight * weight * objectness
            total = total + class_weight * label
        return _NOMINAL_BATCH * 3 / len(self.maps) * total

    def soft_loss(self, reference: Self, temperature: float) -> Tensor:
        """Distillation between heads of one form; this one is our choice.

        τ²-scaled binary divergences of objectness and of classes, and the squared difference of the
        raw boxes; the latter two are weighted by the reference's objectness, and all are divided by
        its sum.
        """
        total = total_weight = self.anchors.new_zeros(())
        for student, teacher in zip(self._levels(), reference.detach()._levels(), strict=True):
            weight = teacher.raw[..., 4].sigmoid()  # (B, A, h, w)
            box_error = (student.raw[..., :4] - teacher.raw[..., :4]).square().mean(-1)
            divergence = binary_divergence(student.raw[..., 4:], teacher.raw[..., 4:], temperature)
            of_objects = weight * (box_error + divergence[..., 1:].sum(-1))
            total = total + (divergence[..., 0] + of_objects).sum()
            total_weight = total_weight + weight.sum()
        return total / (total_weight + 1)

    def compatible_with(self, other: object) -> bool:
        """Whether the other's maps have the same shapes."""
        return isinstance(other, AnchorOutput) and [m.shape for m in self.maps] == [
            m.shape for m in other.maps
        ]

    def decoded(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes (B, N, 4) in pixels, inside the image, and scores (B, N, K) of all N anchors.

        In tensor operations alone, so that it can be part of an exported network.
        """
        levels = self._levels()
        boxes = torch.cat([level.boxes(size) for level in levels], 1)
        scores = torch.cat([level.scores() for level in levels], 1)
        x, y = boxes[..., ::2].clamp(0, size[1]), boxes[..., 1::2].clamp(0, size[0])
        return torch.stack([x, y], -1).flatten(-2), scores

    def detections(self, size: tuple[int, int]) -> list[Detections]:
        """At most 300 boxes of each image with scores above .001, after suppression at IoU .6."""
        decoded = zip(*self.detach().decoded(size), strict=True)
        return [Detections(*class_nms(boxes, scores)) for boxes, scores in decoded]

    def detach(self) -> Self:
        """The same without gradients."""
        return self._replace(maps=tuple(m.detach() for m in self.maps))

    @property
    def classes(self) -> int:
        """K, the number of classes."""
        return self.maps[0].shape[1] // self.anchors.shape[1] - 5

    def _levels(self) -> list["_Level"]:
        return [_Level(*pair) for pair in zip(self.maps, self.anchors.float(), strict=True)]


class _Level:
    """One grid of predictions, in fp32.

    Args:
        scores: (B, A·(5 + K), h, w).
        anchors: (A, 2).
    """

    def __init__(self, scores: Tensor, anchors: Tensor) -> None:
        parts = scores.float().unflatten(1, (len(anchors), -1))
        self.raw = parts.permute(0, 1, 3, 4, 2)  # (B, A, h, w, 5 + K)
        self.anchors = anchors
        self.grid = (self.raw.shape[2], self.raw.shape[3])

    def boxes(self, size: tuple[int, int]) -> Tensor:
        """(B, A·h·w, 4): corners in pixels."""
        rows, columns = self.grid
        offsets = 2 * self.raw[..., :4].sigmoid()
        x = offsets[..., 0] - 0.5 + torch.arange(columns, device=offsets.device)
        y = offsets[..., 1] - 0.5 + torch.arange(rows, device=offsets.device)[:, None]
        center = torch.stack([x * (size[1] / columns), y * (size[0] / rows)], -1)
        half = offsets[..., 2:].square() * self.anchors[:, None, None] * (max(size) / 2)
        return torch.cat([center - half, center + half], -1).flatten(1, 3)

    def scores(self) -> Tensor:
        """(B, A·h·w, K): objectness times the probability of the class."""
        probabilities: Tensor = self.raw[..., 4:].sigmoid().flatten(1, 3)
        return probabilities[..., :1] * probabilities[..., 1:]

    def losses(
        self, targets: Tensor, size: tuple[int, int], gamma: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mean terms of boxes, objectness and classes."""
        index, assigned, target_boxes, labels = assign_targets(
            targets, self.anchors, self.grid, size
        )
        raw = self.raw.flatten(1, 3)  # (B, A·h·w, 5 + K)
        boxes = self.boxes(size).gather(1, index[..., None].expand(-1, -1, 4))
        iou = complete_iou(boxes, target_boxes)  # (B, N)
        count = assigned.sum().clamp(min=1)
        box_loss = (assigned * (1 - iou)).sum() / count
        objectness = torch.zeros_like(raw[..., 4]).scatter_reduce(
            1, index, assigned * iou.detach().clamp(min=0), "amax"
        )
        object_loss = focal_loss(raw[..., 4], objectness, gamma).mean()
        scores = raw[..., 5:].gather(1, index[..., None].expand(-1, -1, raw.shape[-1] - 5))
        one_hot = labels[..., None] == torch.arange(scores.shape[-1], device=scores.device)
        class_loss = (assigned * focal_loss(scores, one_hot, gamma).mean(-1)).sum() / count
        return box_loss, object_loss, class_loss


def assign_targets(
    targets: Tensor, anchors: Tensor, grid: tuple[int, int], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Assign boxes to anchors of a grid: for M boxes, A anchors and 3 cells N = 3 M A candidates.

    Shapes do not depend on the values, and nothing waits for the device.

    Args:
        targets: (B, M, 5): class, x1, y1, x2, y2 in pixels, class −1 for none.
        anchors: (A, 2) as fractions of the image's longer side.
        grid: rows and columns.
        size: height and width of the image in pixels.

    Returns:
        Flat indices into (A, h, w), (B, N) int64; whether the candidate is assigned, (B, N) 0 or 1;
        its box (B, N, 4) and its class (B, N).
    """
    (rows, columns), corners = grid, targets[..., 1:].float()
    low, high = corners[..., :2], corners[..., 2:]
    ratio = (high - low)[:, :, None] / (anchors * max(size))  # (B, M, A, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < _MAX_RATIO
    center = (low + high) / 2
    x, neighbor_x = _cells(center[..., 0] * (columns / size[1]), columns)
    y, neighbor_y = _cells(center[..., 1] * (rows / size[0]), rows)
    x, y = torch.stack([x, neighbor_x, x], -1), torch.stack([y, y, neighbor_y], -1)  # (B, M, 3)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    x, y = x.clamp(0, columns - 1), y.clamp(0, rows - 1)
    plane = torch.arange(len(anchors), device=targets.device)[:, None] * (rows * columns)
    index = plane + (y * columns + x)[:, :, None]  # (B, M, A, 3)
    is_box = (targets[..., 0] >= 0)[:, :, None, None]
    assigned = is_box & fits[..., None] & inside[:, :, None]
    candidates = index[0, 0].numel() if index.shape[1] else 1  # of each box
    return (
        index.flatten(1),
        assigned.flatten(1).float(),
        corners.repeat_interleave(candidates, 1),
        targets[..., 0].repeat_interleave(candidates, 1),
    )


def _cells(position: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The cell of a position and the nearest neighbor of that cell, along one axis."""
    cell = position.floor().clamp(0, count - 1)
    neighbor = torch.where(position - cell < 0.5, cell - 1, cell + 1)
    return cell.long(), neighbor.long()


class AnchorHead(nn.Module):
    """A 1×1 convolution on each map that predicts boxes relative to anchors.

    Jocher et al., YOLOv5 5.0 (2021), https://doi.org/10.5281/zenodo.4679653; with focal terms as
    MUSE has them (https://arxiv.org/abs/2110.12606, section 4.2). Anchors are fractions of the
    image's longer side and grids span the image, so the head serves any size of image and map.
    Three maps get YOLOv5's three anchors each; a single map gets all nine, since it has to find
    small objects and large ones. Biases are initialized to 8 expected objects in an image of 640
    pixels and equal classes.

    Args:
        channels: of the maps, finest first.
        num_classes: K.
        gamma: of the focal terms; 0 is YOLOv5's own plain binary cross-entropy.

    Raises:
        ConfigError: a number of maps that does not divide nine.
    """

    anchors: Tensor

    def __init__(self, channels: Sequence[int], num_classes: int, *, gamma: float = 1.5) -> None:
        super().__init__()
        levels = len(channels)
        if levels not in (1, 3, 9):
            raise ConfigError(f"nine anchors part into 1, 3 or 9 levels, not {levels}")
        anchors = torch.tensor(_ANCHORS, dtype=torch.float32) / _IMAGE
        self.register_buffer("anchors", anchors.reshape(levels, -1, 2))
        self.gamma, per_level = gamma, 9 // levels
        outputs = per_level * (5 + num_classes)
        self.convs = nn.ModuleList(nn.Conv2d(c, outputs, 1) for c in channels)
        with torch.no_grad():
            for i, conv in enumerate(self.convs):
                stride = 32 / 2 ** (levels - 1 - i)
                bias = cast(Tensor, conv.bias).unflatten(0, (per_level, -1))
                bias[:, 4] += math.log(8 / (_IMAGE / stride) ** 2)
                bias[:, 5:] += math.log(0.6 / (num_classes - 0.99))

    def forward(self, maps: Sequence[Tensor] | Tensor) -> AnchorOutput:
        """Raw outputs for the maps, finest first, or for a single one."""
        maps = [maps] if isinstance(maps, Tensor) else maps
        raw = tuple(conv(x) for conv, x in zip(self.convs, maps, strict=True))
        return AnchorOutput(raw, self.anchors, self.gamma)
