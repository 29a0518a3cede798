"""Image decoding ahead of training, in worker processes if there are any."""

import signal
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core import DataError, ResourceError
from ..signals import STOP_SIGNALS
from .image_set import CropKeys, ImageSet
from .images import ImageFiles

ViewKeys = tuple[int, int, int]  # seed, epoch, views


class _DecodedRows(Dataset[Tensor | DataError]):
    """Decodes one row of samples per item: (B, images of a sample, C, H, W) uint8.

    Of videos (B, clips of a sample, C, T, H, W).
    """

    def __init__(
        self,
        images: ImageFiles,
        rows: Sequence[Tensor],
        crop_keys: ViewKeys | None,
        partners: Sequence[Tensor] | None,
    ) -> None:
        self.images, self.rows, self.crop_keys, self.partners = images, rows, crop_keys, partners

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor | DataError:
        samples = self.rows[row].tolist()
        partners = self.partners[row].tolist() if self.partners else [None] * len(samples)
        try:
            return torch.stack([self._views(*p) for p in zip(samples, partners, strict=True)])
        except DataError as error:
            return error  # raised in a worker it would arrive wrapped in a page of traceback

    def _views(self, sample: int, partner: int | None) -> Tensor:
        """The views of one sample, and its partner as a further view."""
        views = self.crop_keys[2] if self.crop_keys else 1
        crops = self.images.decode(sample, [self._keys(sample, view) for view in range(views)])
        if partner is not None:
            crops += self.images.decode(partner, [self._keys(sample, views)])
        return torch.stack(crops)

    def _keys(self, sample: int, view: int) -> CropKeys | None:
        if self.crop_keys is None:
            return None
        seed, epoch, _ = self.crop_keys
        return CropKeys(seed, epoch, sample, view)


def _leave_signals(worker: int) -> None:
    """Let the main process alone act on what is sent to all: it needs its workers to end a step."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def decode_rows(
    images: ImageFiles,
    rows: Sequence[Tensor],
    crop_keys: ViewKeys | None,
    workers: int,
    device: torch.device,
    partners: Sequence[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Decode rows of samples, in their order.

    Args:
        images: the files.
        rows: indices of the samples, (B,) int64 each.
        crop_keys: (seed, epoch, views) of a random resized crop for each view, of a random clip
            each; None for the center.
        workers: processes that decode ahead; 0 to decode in this one.
        device: of the training; decides on pinned memory only.
        partners: for each row the indices of the samples' partners; each is cropped as a further
            view of its sample would be.

    Yields:
        (B, views, C, H, W) uint8 on the CPU; one view where `crop_keys` is None, and behind the
        views the partner, if there are partners.

    Raises:
        DataError: an image cannot be read.
        ResourceError: a worker died.
    """
    loader = DataLoader(
        _DecodedRows(images, rows, crop_keys, partners),
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals if workers else None,
        generator=torch.Generator(),  # else the loader draws its base seed from the global one
    )
    try:
        for decoded in loader:
            if isinstance(decoded, DataError):
                raise decoded
            yield decoded
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter two if it was killed
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise ResourceError(
            "a process that decodes images died, most likely for want of (shared) memory; "
            "lower the number of workers or the batch size, or raise /dev/shm"
        ) from error


def fetch_rows(
    images: ImageSet, rows: Sequence[Tensor], workers: int, device: torch.device
) -> Iterator[Tensor]:
    """The images of rows of samples, as they are, from memory or from files.

    Args:
        images: those in memory lie on the device.
        rows: indices of the samples, (B,) int64 each, on the CPU.
        workers, device: see `decode_rows`.

    Yields:
        (B, C, H, W) uint8 on the device, or clips.
    """
    if isinstance(images, ImageFiles):
        for decoded in decode_rows(images, rows, None, workers, device):
            yield decoded[:, 0].to(device, non_blocking=True)
    else:
        yield from (images.fetch(row.to(device)) for row in rows)
