"""Detection from anchors on grids, in YOLOv5's form: the head, its loss and its boxes."""

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
_BALANCE = (4.0, 1.0, 0.4)  # objectness on the fine, middle and coarse grid
_BOX, _OBJECT, _CLASS = 0.05, 1.0, 0.5
_RATIO = 4.0  # a box's side may be so many times an anchor's, or its part
_NOMINAL = 64  # images of a step in YOLOv5, whose loss is a sum over them


class AnchorOutput(NamedTuple):
    """What a head says of a batch, before any decoding.

    Attributes:
        maps: of each level, (B, A·(5 + K), h, w): x, y, width, height, objectness, classes.
        anchors: (levels, A, 2): widths and heights as parts of the image's longer side.
        gamma: of the focal terms.
    """

    maps: tuple[Tensor, ...]
    anchors: Tensor
    gamma: float

    def loss(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """YOLOv5 5.0's loss, with focal terms for objectness and classes.

        A box is looked for by the anchors whose sides are within 4 times its own, in the cell of
        its center and the nearest neighbor on each axis. CIoU of the decoded box there, what it
        came to as the target of objectness, and the class, are weighted by .05, 1 · H W / 640² and
        .5 · K / 80, over levels in the mean of three. YOLOv5 sums over the images of a batch and
        takes 64 of them a step: that factor is a constant here, so neither batch size nor devices
        change the loss. Each cell is taken once for a box, and of two boxes at one place objectness
        meets the better one; YOLOv5 may count a cell twice, and takes the later box.
        """
        balance = _BALANCE if len(self.maps) == len(_BALANCE) else (1.0,) * len(self.maps)
        things = _OBJECT * size[0] * size[1] / _IMAGE**2
        kinds = _CLASS * self.classes / 80
        total = self.anchors.new_zeros(())
        for level, weight in zip(self._levels(), balance, strict=True):
            box, thing, kind = level.losses(targets, size, self.gamma)
            total = total + _BOX * box + things * weight * thing + kinds * kind
        return _NOMINAL * 3 / len(self.maps) * total

    def soft_loss(self, reference: Self, temperature: float) -> Tensor:
        """Distillation between heads of one form; this one is our choice.

        τ²-scaled binary divergences of objectness and of classes, and the squared gap of the raw
        boxes; the latter two count as much as the reference sees an object, and all are divided by
        how much of that it sees in all.
        """
        total = seen = self.anchors.new_zeros(())
        for mine, theirs in zip(self._levels(), reference.detach()._levels(), strict=True):
            weight = theirs.raw[..., 4].sigmoid()  # (B, A, h, w)
            gap = (mine.raw[..., :4] - theirs.raw[..., :4]).square().mean(-1)
            parts = binary_divergence(mine.raw[..., 4:], theirs.raw[..., 4:], temperature)
            parts_of_objects = weight * (gap + parts[..., 1:].sum(-1))
            total = total + (parts[..., 0] + parts_of_objects).sum()
            seen = seen + weight.sum()
        return total / (seen + 1)

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
        """The 300 surest boxes of each image above a score of .001, after suppression at IoU .6."""
        found = zip(*self.detach().decoded(size), strict=True)
        return [Detections(*class_nms(boxes, scores)) for boxes, scores in found]

    def detach(self) -> Self:
        """The same without gradients."""
        return self._replace(maps=tuple(m.detach() for m in self.maps))

    @property
    def classes(self) -> int:
        """K, how many classes there are."""
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
        said = 2 * self.raw[..., :4].sigmoid()
        x = said[..., 0] - 0.5 + torch.arange(columns, device=said.device)
        y = said[..., 1] - 0.5 + torch.arange(rows, device=said.device)[:, None]
        center = torch.stack([x * (size[1] / columns), y * (size[0] / rows)], -1)
        half = said[..., 2:].square() * self.anchors[:, None, None] * (max(size) / 2)
        return torch.cat([center - half, center + half], -1).flatten(1, 3)

    def scores(self) -> Tensor:
        """(B, A·h·w, K): of an object to be there and of this class."""
        said: Tensor = self.raw[..., 4:].sigmoid().flatten(1, 3)
        return said[..., :1] * said[..., 1:]

    def losses(
        self, targets: Tensor, size: tuple[int, int], gamma: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mean terms of boxes, objectness and classes."""
        place, counts, wanted, labels = assign_targets(targets, self.anchors, self.grid, size)
        said = self.raw.flatten(1, 3)  # (B, A·h·w, 5 + K)
        boxes = self.boxes(size).gather(1, place[..., None].expand(-1, -1, 4))
        overlap = complete_iou(boxes, wanted)  # (B, N)
        total = counts.sum().clamp(min=1)
        box = (counts * (1 - overlap)).sum() / total
        there = torch.zeros_like(said[..., 4]).scatter_reduce(
            1, place, counts * overlap.detach().clamp(min=0), "amax"
        )
        thing = focal_loss(said[..., 4], there, gamma).mean()
        kinds = said[..., 5:].gather(1, place[..., None].expand(-1, -1, said.shape[-1] - 5))
        truth = labels[..., None] == torch.arange(kinds.shape[-1], device=kinds.device)
        kind = (counts * focal_loss(kinds, truth, gamma).mean(-1)).sum() / total
        return box, thing, kind


def assign_targets(
    targets: Tensor, anchors: Tensor, grid: tuple[int, int], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where on a grid each box is looked for: at M boxes, A anchors and 3 cells, N = 3 M A places.

    Shapes do not depend on what is there, and nothing waits for the device.

    Args:
        targets: (B, M, 5): class, x1, y1, x2, y2 in pixels, class −1 for none.
        anchors: (A, 2) as parts of the image's longer side.
        grid: rows and columns.
        size: height and width of the image in pixels.

    Returns:
        Flat places in (A, h, w), (B, N) int64; whether each counts, (B, N) 0 or 1; its box
        (B, N, 4) and its class (B, N).
    """
    (rows, columns), corners = grid, targets[..., 1:].float()
    low, high = corners[..., :2], corners[..., 2:]
    ratio = (high - low)[:, :, None] / (anchors * max(size))  # (B, M, A, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < _RATIO
    center = (low + high) / 2
    x, beside = _cells(center[..., 0] * (columns / size[1]), columns)
    y, above = _cells(center[..., 1] * (rows / size[0]), rows)
    x, y = torch.stack([x, beside, x], -1), torch.stack([y, y, above], -1)  # (B, M, 3)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    x, y = x.clamp(0, columns - 1), y.clamp(0, rows - 1)
    plane = torch.arange(len(anchors), device=targets.device)[:, None] * (rows * columns)
    place = plane + (y * columns + x)[:, :, None]  # (B, M, A, 3)
    there = (targets[..., 0] >= 0)[:, :, None, None]
    counts = there & fits[..., None] & inside[:, :, None]
    each = place[0, 0].numel() if place.shape[1] else 1
    return (
        place.flatten(1),
        counts.flatten(1).float(),
        corners.repeat_interleave(each, 1),
        targets[..., 0].repeat_interleave(each, 1),
    )


def _cells(place: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The cell that a place lies in and the neighbor that it is nearer to, along one axis."""
    cell = place.floor().clamp(0, count - 1)
    neighbor = torch.where(place - cell < 0.5, cell - 1, cell + 1)
    return cell.long(), neighbor.long()


class AnchorHead(nn.Module):
    """A 1×1 convolution on each map, read by anchors.

    Jocher et al., YOLOv5 5.0 (2021), https://doi.org/10.5281/zenodo.4679653; with focal terms as
    MUSE has them (https://arxiv.org/abs/2110.12606, section 4.2). Anchors are parts of the image's
    longer side and grids span the whole image, so the head serves any size of image and map. Three
    maps get YOLOv5's three anchors each; one map alone gets all nine, since it has to find small
    objects and large ones. It is born to see 8 objects in an image of 640 pixels and no class
    before the others.

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
        self.gamma, each = gamma, 9 // levels
        self.convs = nn.ModuleList(nn.Conv2d(c, each * (5 + num_classes), 1) for c in channels)
        with torch.no_grad():
            for i, conv in enumerate(self.convs):
                stride = 32 / 2 ** (levels - 1 - i)
                bias = cast(Tensor, conv.bias).unflatten(0, (each, -1))
                bias[:, 4] += math.log(8 / (_IMAGE / stride) ** 2)
                bias[:, 5:] += math.log(0.6 / (num_classes - 0.99))

    def forward(self, maps: Sequence[Tensor] | Tensor) -> AnchorOutput:
        """The maps, finest first, or the only one."""
        maps = [maps] if isinstance(maps, Tensor) else maps
        said = tuple(conv(each) for conv, each in zip(self.convs, maps, strict=True))
        return AnchorOutput(said, self.anchors, self.gamma)
