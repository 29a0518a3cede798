"""Pictures decoded ahead of training, in worker processes where wanted."""

from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core import DataError, ResourceError
from .augment import resized_crop_box
from .images import Folder

Boxes = tuple[int, int, int]  # seed, epoch, views


class _Rows(Dataset[Tensor | DataError]):
    """Decodes one row of samples per item: (B, pictures of a sample, 3, H, W) uint8."""

    def __init__(
        self,
        images: Folder,
        rows: Sequence[Tensor],
        boxes: Boxes | None,
        partners: Sequence[Tensor] | None,
    ) -> None:
        self.images, self.rows, self.boxes, self.partners = images, rows, boxes, partners

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor | DataError:
        samples = self.rows[row].tolist()
        partners = self.partners[row].tolist() if self.partners else [None] * len(samples)
        try:
            parts = [self._parts(*pair) for pair in zip(samples, partners, strict=True)]
        except DataError as fault:
            return fault  # raised in a worker it would arrive wrapped in a page of traceback
        return torch.stack(parts)

    def _parts(self, sample: int, partner: int | None) -> Tensor:
        """The views of one sample, and its partner as one view more."""
        views = self.boxes[2] if self.boxes else 1
        picture = self.images.open(sample)
        parts = [self._cut(picture, sample, view) for view in range(views)]
        if partner is not None:
            parts.append(self._cut(self.images.open(partner), sample, views))
        return torch.stack(parts)

    def _cut(self, picture: Image.Image, sample: int, view: int) -> Tensor:
        if self.boxes is None:
            return self.images.fitted(picture)
        seed, epoch, _ = self.boxes
        size = picture.height, picture.width
        box = resized_crop_box(seed, epoch, torch.tensor([sample]), *size, view=view)[0]
        return self.images.boxed(picture, box.tolist())


def pictures(
    images: Folder,
    rows: Sequence[Tensor],
    boxes: Boxes | None,
    workers: int,
    device: torch.device,
    partners: Sequence[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Decode rows of samples, in their order.

    Args:
        images: the pictures.
        rows: places of the samples, (B,) int64 each.
        boxes: (seed, epoch, views) to cut each view's own random part; None for the center.
        workers: processes that decode ahead; 0 to decode in this one.
        device: where the rows will go; decides on pinned memory only.
        partners: for each row the places of its samples' partners; each is cut as a further view
            of its sample would be.

    Yields:
        (B, views, 3, H, W) uint8 on the CPU; one view where `boxes` is None, and behind the views
        the partner, if there are partners.

    Raises:
        DataError: a picture cannot be read.
        ResourceError: a worker died.
    """
    loader = DataLoader(
        _Rows(images, rows, boxes, partners),
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else the loader draws its base seed from the global one
    )
    try:
        for decoded in loader:
            if isinstance(decoded, DataError):
                raise decoded
            yield decoded
    except RuntimeError as fault:
        if "DataLoader worker" not in str(fault):
            raise
        raise ResourceError(
            "a process that decodes images died, most likely for want of (shared) memory; "
            "lower the number of workers or the batch size, or raise /dev/shm"
        ) from fault
