"""Batches as a function of (seed, epoch, step), so that a resume is exact at any step."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..core import Batch, ConfigError, DataError, keyed_random
from ..core.memory_format import channels_last
from .augment import normalize
from .auto_augment import AutoAugment
from .color import color_jitter, hsv_jitter
from .decoding import decode_rows, fetch_rows
from .erasing import random_erasing
from .geometry import GeometricAugmentation
from .image_set import ImageSet
from .images import ImageFiles
from .in_memory import InMemoryImages
from .mixing import Mixing
from .mosaic import Mosaic
from .same_class import SameClassSampler

_ORDER = keyed_random.purpose("order")


class Loader:
    """Augmented training batches of one process, of videos a random clip each.

    The samples of an optimizer step are a slice of the epoch's order; every process and every
    micro-batch takes a contiguous slice of that slice. The remainder that fills no whole batch is
    left out, so shapes stay the same; as the order differs in each epoch no sample is left out
    for good.

    Args:
        images: the training images; `InMemoryImages` ones are moved to the device once.
        batch_size: samples of one optimizer step, over all processes and micro-batches.
        seed: key of every draw.
        mean, std: one number per channel, of pixels in [0, 1].
        crop_padding: of the random crop in pixels; 0 for none.
        flip: whether to flip half of the images left to right.
        resized_crop: whether to take random resized crops.
        max_zoom: factor of the largest random zoom; 1 for none.
        color_jitter: strength of random colors, see `color.color_jitter`; 0 for none.
        hsv_jitter: gains of random hue, saturation and value, see `color.hsv_jitter`; () for none.
        scale_jitter, shift: of a random scale and shift in place of the zoom; 0 for none.
        mosaic_probability: of four images in one, see `mosaic.Mosaic`; 0 for none.
        mosaic_epochs: how many epochs have mosaics; None for all.
        auto_augment: RandAugment or TrivialAugment; None for neither.
        erase_probability: of random erasing, see `erasing.random_erasing`; 0 for none.
        mixing: mixup and CutMix of images with labels; None for neither.
        views: independent augmentations of each image; those after the first are `Batch.views`.
        same_class: whether each image comes with another one of its class,
            `Batch.same_class_inputs`, which is augmented with the image's own draws of a further
            view: two images may share a partner.
        rank, world_size: index of this process, number of processes.
        micro_batches: number of batches into which a process divides its samples of a step.
        device: of the batches.
        workers: processes that decode `ImageFiles` images; their number changes no pixel.
        channels_last: memory format of the batches.
        view_cycle: epochs after which the same views of the images come again, in another order; 0
            for never.
        view_seed: key of the draws that make a view; None is `seed`.

    Raises:
        ConfigError: the batch size does not divide by world_size · micro_batches.
        DataError: there are fewer images than one batch takes.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        batch_size: int,
        seed: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        crop_padding: int,
        flip: bool,
        resized_crop: bool = False,
        max_zoom: float = 1.0,
        color_jitter: float = 0.0,
        hsv_jitter: tuple[float, ...] = (),
        scale_jitter: float = 0.0,
        shift: float = 0.0,
        mosaic_probability: float = 0.0,
        mosaic_epochs: int | None = None,
        auto_augment: AutoAugment | None = None,
        erase_probability: float = 0.0,
        mixing: Mixing | None = None,
        views: int = 1,
        same_class: bool = False,
        rank: int = 0,
        world_size: int = 1,
        micro_batches: int = 1,
        device: torch.device | str = "cpu",
        workers: int = 0,
        channels_last: bool = False,
        view_cycle: int = 0,
        view_seed: int | None = None,
    ) -> None:
        _check_batch(batch_size, world_size * micro_batches, len(images))
        self.device = torch.device(device)
        self.images = images.to(self.device) if isinstance(images, InMemoryImages) else images
        self.targets = images.targets.to(self.device)
        self.batch_size, self.seed, self.mean, self.std = batch_size, seed, mean, std
        self.view_cycle, self.view_seed = view_cycle, seed if view_seed is None else view_seed
        mosaic = None
        if mosaic_probability:
            size = images.shape[-2], images.shape[-1]
            areas = self.targets.picture_areas(size)
            mosaic = Mosaic(self.view_seed, mosaic_probability, areas, size, mosaic_epochs)
        geometry = self.view_seed, crop_padding, flip, resized_crop, max_zoom, auto_augment
        self.geometry = GeometricAugmentation(*geometry, scale_jitter, shift, mosaic)
        self.views, self.color_jitter, self.hsv_jitter = views, color_jitter, hsv_jitter
        self.erase_probability = erase_probability
        self.mixing = mixing if mixing and mixing.active else None
        self.same_class = SameClassSampler(images.labels, seed) if same_class else None
        self.rank, self.world_size, self.micro_batches = rank, world_size, micro_batches
        self.workers, self.channels_last = workers, channels_last
        self.chosen: Tensor | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over all images."""
        return len(self.images) // self.batch_size

    def choose(self, indices: Tensor) -> None:
        """Take only these images, (M,) int64; an epoch has as many steps as before."""
        self.chosen = indices

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The batches of an epoch from step `start` on: for each step one per micro-batch."""
        rows = self.order(epoch)[start:].flatten(0, 1)  # (steps · micro-batches, samples)
        return _groups(self.batches(rows, epoch), self.micro_batches)

    def batches(self, rows: Tensor, epoch: int) -> Iterator[Batch]:
        """One batch for each row of samples, with their views of an epoch.

        Args:
            rows: indices of the samples, (batches, samples) int64, on the CPU.
            epoch: whose views they are.
        """
        partners = self.same_class.draw(epoch, rows) if self.same_class else None
        epoch = self.view_epoch(epoch)
        if mosaic := self.geometry.mosaic_in(epoch):
            views = self._mosaics(mosaic, rows, epoch)
        else:
            views = self._views(rows, partners, epoch)
        for images, row, index in zip(views, rows, rows.to(self.device), strict=True):
            yield self._batch(images, index, self.geometry.of_samples(row), epoch)

    def view_epoch(self, epoch: int) -> int:
        """The epoch whose views come in this one: the first that has them."""
        return epoch % self.view_cycle if self.view_cycle else epoch

    def left_out(self, epoch: int) -> Tensor:
        """This process's share of the samples that fill no whole batch, (M,) int64."""
        wanted = self.steps_per_epoch * self.batch_size
        order = keyed_random.permutation(len(self.images), _ORDER, self.seed, epoch)
        return order[wanted:][self.rank :: self.world_size]

    def order(self, epoch: int) -> Tensor:
        """Indices of this process's samples: (steps, micro-batches, samples) int64, on the CPU."""
        wanted = self.steps_per_epoch * self.batch_size
        if self.chosen is None:
            order = keyed_random.permutation(len(self.images), _ORDER, self.seed, epoch)
        else:
            count = len(self.chosen)
            passes = [
                self.chosen[keyed_random.permutation(count, _ORDER, self.seed, epoch, number)]
                for number in range(-(-wanted // count))
            ]
            order = torch.cat(passes)
        samples = order[:wanted]
        shape = (self.steps_per_epoch, self.world_size, self.micro_batches, -1)
        return samples.view(shape)[:, self.rank]

    def _views(self, rows: Tensor, partners: Tensor | None, epoch: int) -> Iterator[list[Tensor]]:
        """For each row its images before crop and flip: one (B, C, H, W) uint8 per view, or clips.

        Behind the views come the partners, if there are any.
        """
        if isinstance(self.images, ImageFiles):
            yield from self._decoded(self.images, rows, partners, epoch)
            return
        sources = rows[None] if partners is None else torch.stack([rows, partners])
        for index, *others in sources.to(self.device).unbind(1):
            fetched = (
                self.images.fetch_view(source, self.view_seed, epoch, index, view)
                for view, source in enumerate([index] * self.views + others)
            )
            yield [
                self.geometry.crop_or_zoom(x, epoch, index, view) for view, x in enumerate(fetched)
            ]

    def _mosaics(self, mosaic: Mosaic, rows: Tensor, epoch: int) -> Iterator[list[Tensor]]:
        """As `_views`, of an epoch with mosaics; each picture of a batch is fetched once."""
        samples = [
            torch.stack([mosaic.samples(epoch, row, view) for view in range(self.views)])
            for row in rows
        ]  # (views, B, 4) for each row
        needed, places = zip(*(each.unique(return_inverse=True) for each in samples), strict=True)
        fetched = fetch_rows(self.images, needed, self.workers, self.device)
        for row, pictures, tiles in zip(rows, fetched, places, strict=True):
            index = row.to(self.device)
            yield [
                self.geometry.mosaics(pictures, of_view, epoch, index, view)
                for view, of_view in enumerate(tiles.to(self.device))
            ]

    def _decoded(
        self, images: ImageFiles, rows: Tensor, partners: Tensor | None, epoch: int
    ) -> Iterator[list[Tensor]]:
        keys = (self.view_seed, epoch, self.views) if self.geometry.resized_crop else None
        partner_rows = None if partners is None else partners.unbind()
        decoded = decode_rows(images, rows.unbind(), keys, self.workers, self.device, partner_rows)
        for samples, row in zip(rows, decoded, strict=True):
            first, *others = row.to(self.device, non_blocking=True).unbind(1)
            if keys:
                yield [first, *others]
                continue
            views = [first] * self.views + others  # one decoding serves all views
            index = samples.to(self.device)
            yield [
                self.geometry.crop_or_zoom(x, epoch, index, view) for view, x in enumerate(views)
            ]

    def _batch(
        self, views: list[Tensor], index: Tensor, geometry: GeometricAugmentation, epoch: int
    ) -> Batch:
        flipped = (geometry.pad_and_flip(x, epoch, index, view) for view, x in enumerate(views))
        first, *others = (self._colored(x, epoch, index, view) for view, x in enumerate(flipped))
        partners = others.pop() if self.same_class else None
        targets = self.targets.fetch(index, geometry, epoch)
        if self.mixing:
            targets = self.mixing.labels(targets, epoch, index, *first.shape[-2:])
            first, *others = (self._mixed(x, epoch, index) for x in (first, *others))
        return Batch(first, targets, index, tuple(others), partners)

    def _mixed(self, images: Tensor, epoch: int, index: Tensor) -> Tensor:
        assert self.mixing is not None
        images = self.mixing.images(images, epoch, index)
        return channels_last(images) if self.channels_last else images

    def _colored(self, images: Tensor, epoch: int, index: Tensor, view: int) -> Tensor:
        keys = self.view_seed, epoch, index, view
        images = color_jitter(images, self.color_jitter, *keys)
        images = hsv_jitter(images, self.hsv_jitter, *keys)
        if self.channels_last:
            images = channels_last(images)
        images = normalize(images, self.mean, self.std)
        return random_erasing(images, self.erase_probability, *keys)


def _groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    while group := [batch for _, batch in zip(range(size), batches, strict=False)]:
        yield group


def _check_batch(batch_size: int, parts: int, images: int) -> None:
    if batch_size < 1 or batch_size % parts:
        near = max(parts, round(batch_size / parts) * parts)
        raise ConfigError(
            f"batch_size={batch_size} does not divide into world_size · micro_batches = {parts} "
            f"equal parts; the nearest that does is {near}"
        )
    if images < batch_size:
        raise DataError(
            f"{images} training images do not fill one batch of {batch_size}; "
            "lower batch_size, or raise max_train_images or lower val_fraction"
        )
