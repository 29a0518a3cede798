"""Pictures decoded ahead of training, in worker processes where wanted."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core import DataError, ResourceError
from .augment import resized_crop_box
from .images import Folder

Boxes = tuple[int, int, int]  # seed, epoch, views


class _Rows(Dataset[Tensor | DataError]):
    """Decodes one row of samples per item: (B, views, 3, H, W) uint8."""

    def __init__(self, images: Folder, rows: Sequence[Tensor], boxes: Boxes | None) -> None:
        self.images, self.rows, self.boxes = images, rows, boxes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor | DataError:
        try:
            return torch.stack([self._views(sample) for sample in self.rows[row].tolist()])
        except DataError as fault:
            return fault  # raised in a worker it would arrive wrapped in a page of traceback

    def _views(self, sample: int) -> Tensor:
        picture = self.images.open(sample)
        if self.boxes is None:
            return self.images.centre(picture)[None]
        seed, epoch, views = self.boxes
        place = torch.tensor([sample])
        parts = []
        for view in range(views):
            height, width = picture.height, picture.width
            box = resized_crop_box(seed, epoch, place, height, width, view=view)[0]
            parts.append(self.images.boxed(picture, box.tolist()))
        return torch.stack(parts)


def pictures(
    images: Folder,
    rows: Sequence[Tensor],
    boxes: Boxes | None,
    workers: int,
    device: torch.device,
) -> Iterator[Tensor]:
    """Decode rows of samples, in their order.

    Args:
        images: the pictures.
        rows: places of the samples, (B,) int64 each.
        boxes: (seed, epoch, views) to cut each view's own random part; None for the centre.
        workers: processes that decode ahead; 0 to decode in this one.
        device: where the rows will go; decides on pinned memory only.

    Yields:
        (B, views, 3, H, W) uint8 on the CPU; one view where `boxes` is None.

    Raises:
        DataError: a picture cannot be read.
        ResourceError: a worker died.
    """
    loader = DataLoader(
        _Rows(images, rows, boxes),
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
