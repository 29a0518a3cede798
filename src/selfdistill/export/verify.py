"""Verification of an exported file against the trained method."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import Method, Task
from ..data import EvalLoader, ImageData, ImageSet
from ..data.augment import normalize
from .box_agreement import BoxAgreement, ExportedDetections

TOLERANCE = 1e-4
"""Relative to the largest logit, or to 1 if that is more: float32 has seven digits, and another
order of summation costs some of them in every layer."""

_MAX_BATCH_SIZE = 256
_MAX_BATCH_PIXELS = 1 << 20  # a segmenter has scores for each of them
_NUM_RANDOM_IMAGES = 512  # where the data hold none out


class ExportVerification(NamedTuple):
    """Result of running an exported file and the original method on the same images.

    Attributes:
        split: of the images: "test", "val", or "random" where the data have neither.
        images: their number.
        holds: whether both are the same network up to rounding.
        summary: what was compared and the differences, a clause.
        score: of the file, in the task's primary metric; None on random images.
    """

    split: str
    images: int
    holds: bool
    summary: str
    score: float | None


@torch.no_grad()
def verify_export(
    method: Method, name: str, run: Callable[[Tensor], Any], data: ImageData, task: Task
) -> ExportVerification:
    """Run both over the test set, else the validation set, else random images.

    Args:
        method: trained, on the CPU, in evaluation mode.
        name: of the exported predictor.
        run: the file as a function from images or clips float32 in 0 … 1 to logits
            (B, K, ...), to boxes, scores and labels, or to the predictor's own outputs.
        data: at the image size of the file.
        task: of the data.
    """
    split = "test" if data.test else "val" if data.val else "random"
    size = (data.train.shape[-2], data.train.shape[-1])
    agreement: LogitAgreement | BoxAgreement = (
        BoxAgreement(size)
        if len(task.output_names) > 1
        else LogitAgreement(size, classes=task.class_scores)
    )
    metric, images = task.metric(), 0
    for pixels, targets in _verification_batches(data, task):
        expected = method.predict(normalize(pixels, data.mean, data.std))[name]
        actual = file_outputs(run, pixels)
        agreement.update(expected, actual)
        images += len(pixels)
        if targets is not None:
            metric.update(actual, targets)
    score = None if split == "random" else float(metric.compute()[task.primary_metric])
    return ExportVerification(split, images, agreement.holds, agreement.summary, score)


class LogitAgreement:
    """Agreement of the logits of a network and of an exported file, of images or of pixels.

    Args:
        size: height and width of the images, to which dense logits are resized.
        classes: whether they are scores of classes, or numbers without such a meaning.
    """

    def __init__(self, size: tuple[int, int], *, classes: bool = True) -> None:
        self.size, self.classes = size, classes
        self.difference = self.largest = torch.zeros(())
        self.count = self.matched = 0
        self.dense = False

    def update(self, expected: Tensor, actual: Tensor) -> None:
        """Compare a batch: (B, K) twice, or (B, K, h, w) and (B, K, H, W)."""
        if expected.dim() == 4:
            self.dense = True
            expected = F.interpolate(expected.float(), size=self.size, mode="bilinear")
        error = (actual - expected).abs().max()
        self.difference = torch.maximum(self.difference, error)  # keeps a nan
        self.largest = torch.maximum(self.largest, expected.abs().max())
        matches = actual.argmax(1) == expected.argmax(1)
        self.count += matches.numel()
        self.matched += int(matches.sum())

    @property
    def tolerance(self) -> float:
        """The largest difference that rounding explains."""
        return TOLERANCE * max(1.0, float(self.largest))

    @property
    def holds(self) -> bool:
        """Whether both are the same network up to rounding.

        Logits this close can differ in the class only where two classes are as good as tied.
        """
        return float(self.difference) <= self.tolerance

    @property
    def summary(self) -> str:
        """The difference, its tolerance, and how many predicted classes are the same."""
        noun, differ = "logits" if self.classes else "outputs", float(self.difference)
        difference = f"{noun} differ by {differ:.1e} at most ({self.tolerance:.1e} allowed)"
        if not self.classes:
            return difference
        share = f"{self.matched:,} of {self.count:,}{' pixels' if self.dense else ''}"
        if self.matched == self.count:
            share = "all pixels" if self.dense else "all of them"
        return f"{difference}, the same class for {share}"


def verification_batch_size(data: ImageData) -> int:
    """Images to run at a time, so that the scores of all their pixels fit the memory."""
    return max(1, min(_MAX_BATCH_SIZE, _MAX_BATCH_PIXELS // prod(data.train.shape[1:])))


def _verification_batches(data: ImageData, task: Task) -> Iterator[tuple[Tensor, Any]]:
    """Pixels (B, C, H, W) uint8 and targets of each batch; None as targets of random images."""
    held_out, batch_size = data.test or data.val, verification_batch_size(data)
    if not held_out:
        generator = torch.Generator().manual_seed(0)
        shape = (_NUM_RANDOM_IMAGES if task.image_labels else batch_size, *data.train.shape)
        random = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        yield from ((pixels, None) for pixels in random.split(batch_size))
        return
    yield from _batches(held_out, data)


def _batches(images: ImageSet, data: ImageData) -> Iterator[tuple[Tensor, Any]]:
    """Pixels (B, C, H, W) uint8 and targets of each batch of a part of the data."""
    zero, one = (0.0,) * len(data.mean), (1.0,) * len(data.mean)
    size = verification_batch_size(data)
    for batch in EvalLoader(images, batch_size=size, mean=zero, std=one):
        yield (batch.inputs * 255).round().to(torch.uint8), batch.targets


def file_score(
    run: Callable[[Tensor], Any], images: ImageSet, data: ImageData, task: Task
) -> float:
    """The score of an exported file in the task's primary metric.

    Args:
        run: the file as a function of images, as `verify_export` takes it.
        images: all of them are run.
        data: that they are of.
        task: of the data.
    """
    metric = task.metric()
    for pixels, targets in _batches(images, data):
        metric.update(file_outputs(run, pixels), targets)
    return float(metric.compute()[task.primary_metric])


def file_outputs(run: Callable[[Tensor], Any], pixels: Tensor) -> Any:
    """A file's outputs for images (B, C, H, W) uint8, as the task's metric takes them."""
    outputs = run(pixels.float() / 255)
    return ExportedDetections(*outputs) if type(outputs) in (tuple, list) else outputs
