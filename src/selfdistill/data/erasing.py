"""Random erasing of rectangles, each draw keyed by its sample."""

import torch
from torch import Tensor

from ..core import keyed_random
from .augment import fitting_boxes

_WHETHER, _BOX = map(keyed_random.purpose, ("whether to erase", "erased box"))
SCALE = (0.02, 1 / 3)
RATIO = (0.3, 3.3)


def random_erasing(
    images: Tensor, probability: float, seed: int, epoch: int, index: Tensor, view: int = 0
) -> Tensor:
    """Set a rectangle of some images to zero, which is the mean once they are normalized.

    Zhong et al. 2017, https://arxiv.org/abs/1708.04896, with the ranges of torchvision's
    `RandomErasing`: 0.02 … 1/3 of the area, width to height 0.3 … 3.3. Of ten rectangles the
    first that fits is erased, and none if none does. All frames of a clip lose the same one.

    Args:
        images: (B, C, H, W) or (B, C, T, H, W) float, normalized.
        probability: in [0, 1], of an image.
        seed, epoch, view: keys of the draw.
        index: (B,) int64 on the images' device, of each sample in the training set.
    """
    if not probability:
        return images
    height, width = images.shape[-2:]
    box, erased = erased_boxes(probability, seed, epoch, index, height, width, view)
    top, left, rows, columns = box[:, :, None].unbind(1)  # (B, 1)
    y = torch.arange(height, device=images.device)
    x = torch.arange(width, device=images.device)
    vertical = (y >= top) & (y < top + rows) & erased[:, None]  # (B, H)
    horizontal = (x >= left) & (x < left + columns)  # (B, W)
    inside = vertical[:, :, None] & horizontal[:, None]  # (B, H, W)
    return images.masked_fill(
        inside.view(len(images), *[1] * (images.dim() - 3), *inside.shape[1:]), 0
    )


def erased_boxes(
    probability: float,
    seed: int,
    epoch: int,
    index: Tensor,
    height: int,
    width: int,
    view: int = 0,
) -> tuple[Tensor, Tensor]:
    """(B, 4) int64: top, left, height, width of each rectangle; (B,) bool: whether it is erased."""
    boxes, fits = fitting_boxes(_BOX, seed, epoch, index, height, width, SCALE, RATIO, view)
    wanted = keyed_random.uniform(_WHETHER, seed, epoch, index, view) < probability
    return boxes, fits & wanted
