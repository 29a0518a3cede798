"""Four training pictures in one, each draw keyed by its sample as those of `augment` are."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import IGNORE, keyed_random
from .zoom import GRAY, sample_positions, zoom_masks

_WHETHER, _PARTNERS, _PLACE, _CENTER = map(
    keyed_random.purpose,
    ("whether to make a mosaic", "mosaic partners", "place in the mosaic", "mosaic center"),
)
_TILES = 4


class MosaicLayout(NamedTuple):
    """Which pictures a batch of mosaics holds, and where, in pixels of the images.

    The tiles are top left, top right, bottom left and bottom right; an image that is no mosaic is
    its own tile at the top left, which has all of the plane.

    Attributes:
        samples: (B, 4) int64, the training images in the tiles.
        present: (B, 4) bool, whether there is such a tile.
        center: (B, 2) float32, y and x where the tiles meet.
        areas: (B, 4, 4) float32, of each tile's picture in its own image: top, left, height, width.
        offsets: (B, 4, 2) float32, y and x of each tile's own image.
    """

    samples: Tensor
    present: Tensor
    center: Tensor
    areas: Tensor
    offsets: Tensor

    def move_boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (B, 4, M, 4) in pixels of the tiles' own images to (B, 4·M, 4) of the mosaics."""
        return (boxes + self.offsets.flip(2).repeat(1, 1, 2)[:, :, None]).flatten(1, 2)

    def visible(self, tile: int, y: Tensor, x: Tensor) -> Tensor:
        """Where a tile's picture lies among rows y (B, H) and columns x (B, W): (B, H, W) bool."""
        sides = []
        for axis, place in enumerate((y, x)):
            behind = bool((tile >> (1 - axis)) & 1)
            start = self.areas[:, tile, axis] + self.offsets[:, tile, axis]
            end = start + self.areas[:, tile, axis + 2]
            own_side = (place >= self.center[:, axis, None]) == behind
            sides.append(own_side & (place >= start[:, None]) & (place < end[:, None]))
        return sides[0][:, :, None] & sides[1][:, None]


class Mosaic(NamedTuple):
    """Images of four pictures that meet in a random point, as YOLOv5 trains (release 5.0,
    https://github.com/ultralytics/yolov5, `load_mosaic`; the idea is of YOLOv4, Bochkovskiy et al.
    2020, https://arxiv.org/abs/2004.10934).

    The point lies anywhere in the image, on whole pixels. Each picture has a corner there, at the
    size it has by itself and without the gray around it. The sample takes one of the four places at
    random; the other pictures are drawn from all training images, with repetitions. A window that
    is larger than the image shows more of the pictures; YOLOv5 cuts off what lies beyond twice the
    image's sides.

    Attributes:
        seed: key of every draw.
        probability: of a mosaic.
        areas: (N, 4) float32, of each training picture in its image: top, left, height, width.
        size: height and width of the images.
        epochs: how many epochs have mosaics; None for all.
    """

    seed: int
    probability: float
    areas: Tensor
    size: tuple[int, int]
    epochs: int | None = None

    def active(self, epoch: int) -> bool:
        """Whether there are mosaics in an epoch."""
        return self.probability > 0 and (self.epochs is None or epoch < self.epochs)

    def chosen(self, epoch: int, index: Tensor, view: int = 0) -> Tensor:
        """Which samples become mosaics, (B,) bool."""
        draw = keyed_random.uniform(_WHETHER, self.seed, epoch, index, view)
        return draw < self.probability

    def samples(self, epoch: int, index: Tensor, view: int = 0) -> Tensor:
        """The training images in the tiles, (B, 4) int64; of other images four times the sample."""
        tile = torch.arange(_TILES, device=index.device)
        keys = self.seed, epoch, index[:, None], view
        partners = keyed_random.integers(len(self.areas), _PARTNERS, *keys, tile)
        own = tile == keyed_random.integers(_TILES, _PLACE, *keys)
        own |= ~self.chosen(epoch, index, view)[:, None]
        return torch.where(own, index[:, None], partners)

    def layout(self, epoch: int, index: Tensor, view: int = 0) -> MosaicLayout:
        """What the images of a batch hold, (B,) int64 on the device of the areas."""
        samples, chosen = self.samples(epoch, index, view), self.chosen(epoch, index, view)[:, None]
        tile, axes = (torch.arange(n, device=index.device) for n in (_TILES, 2))
        sides = torch.tensor(self.size, device=index.device)
        drawn = keyed_random.bits(_CENTER, self.seed, epoch, index[:, None], view, axes) % sides
        center = torch.where(chosen, drawn.float(), torch.inf)  # (B, 2)
        areas = self.areas[samples]  # (B, 4, 4)
        behind = torch.stack([tile >= 2, tile % 2 == 1], -1)  # (4, 2): below, right
        corner = torch.where(behind, areas[..., :2], areas[..., :2] + areas[..., 2:])
        offsets = torch.where(chosen[..., None], drawn[:, None] - corner, 0)
        return MosaicLayout(samples, chosen | (tile == 0), center, areas, offsets)

    def images(
        self, pictures: Tensor, places: Tensor, layout: MosaicLayout, windows: Tensor
    ) -> Tensor:
        """Windows of mosaics, bilinear within each picture, gray where there is none.

        Args:
            pictures: (U, C, H, W) uint8.
            places: (B, 4) int64, where the layout's samples are among the pictures.
            layout: of the batch.
            windows: (B, 4) float32: top, left, height, width, see `zoom`.

        Returns:
            (B, C, H, W) uint8.
        """
        y, x = self._positions(windows)
        mosaics = pictures.new_full((len(places), *pictures.shape[1:]), GRAY)
        for tile in range(_TILES):
            start, length = layout.areas[:, tile].split(2, 1)  # (B, 2)
            low, high = start + 0.5, start + length - 0.5  # so that no pixel is mixed with the gray
            of_tile = [
                (place - layout.offsets[:, tile, axis, None])
                .maximum(low[:, axis, None])
                .minimum(high[:, axis, None])
                for axis, place in enumerate((y, x))
            ]
            sampled = _bilinear(pictures[places[:, tile]], *of_tile)
            mosaics = torch.where(layout.visible(tile, y, x)[:, None], sampled, mosaics)
        return mosaics

    def masks(self, masks: Tensor, layout: MosaicLayout, windows: Tensor) -> Tensor:
        """Windows of the mosaics of all masks (N, H, W) uint8, nearest-neighbor: (B, H, W).

        Where there is no picture they are `IGNORE`.
        """
        y, x = self._positions(windows)
        mosaics = masks.new_full((len(windows), *self.size), IGNORE)
        for tile in range(_TILES):
            offset_y, offset_x = layout.offsets[:, tile].unbind(1)
            top, left, *sides = windows.unbind(1)
            chosen = masks.index_select(0, layout.samples[:, tile])
            sampled = zoom_masks(chosen, top - offset_y, left - offset_x, *sides)
            mosaics = torch.where(layout.visible(tile, y, x), sampled, mosaics)
        return mosaics

    def _positions(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (B, H) and columns (B, W) of a window's pixels."""
        top, left, rows, columns = windows.unbind(1)
        height, width = self.size
        return sample_positions(top, rows, height), sample_positions(left, columns, width)


def _bilinear(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Images (B, C, H, W) uint8 at rows y (B, H) and columns x (B, W), in pixels."""
    height, width = images.shape[2:]
    grid_y = (2 * y / height - 1)[:, :, None].expand(-1, -1, width)
    grid_x = (2 * x / width - 1)[:, None, :].expand(-1, height, -1)
    grid = torch.stack([grid_x, grid_y], -1)
    sampled = F.grid_sample(images.float(), grid, "bilinear", "border", align_corners=False)
    return sampled.round_().clamp_(0, 255).to(torch.uint8)
