"""Whether an exported file says what the network said in training."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import Method, Task
from ..data import EvalLoader, ImageData
from ..data.augment import normalize
from .box_agreement import BoxAgreement, ExportedDetections

TOLERANCE = 1e-4
"""Of the largest logit, or of 1 if that is more: float32 has seven digits, and another order of
summation costs some of them in every layer."""

_BATCH = 256
_PIXELS = 1 << 20  # of a batch, where each of them has scores of its own
_MADE_UP = 512  # images, where the data hold none out


class ExportVerification(NamedTuple):
    """An exported file beside the method it was cut from.

    Attributes:
        part: of the data: "test", "val", or "random" where there were neither.
        images: how many there were.
        holds: whether it is the same network.
        told: what was compared and found, a clause.
        score: the file's own, in the task's primary metric; None of random images.
    """

    part: str
    images: int
    holds: bool
    told: str
    score: float | None


@torch.no_grad()
def verify_export(
    method: Method, name: str, run: Callable[[Tensor], Any], data: ImageData, task: Task
) -> ExportVerification:
    """Run both over the whole test set, or the validation set, or made-up images.

    Args:
        method: trained, on the CPU, in evaluation mode.
        name: the predictor that was exported.
        run: the file: images (B, C, H, W) float32 in 0 … 1 to logits (B, K, ...), to boxes, scores
            and labels, or to what the predictor itself says.
        data: at the size that the file was made for.
        task: what its labels mean.
    """
    part = "test" if data.test else "val" if data.val else "random"
    size = (data.train.shape[1], data.train.shape[2])
    judge: LogitAgreement | BoxAgreement = (
        LogitAgreement(size) if task.class_scores else BoxAgreement(size)
    )
    metric, images = task.metric(), 0
    for pixels, targets in _images(data, task):
        want = method.predict(normalize(pixels, data.mean, data.std))[name]
        got: Any = run(pixels.float() / 255)
        got = ExportedDetections(*got) if type(got) is tuple else got
        judge.update(want, got)
        images += len(pixels)
        if targets is not None:
            metric.update(got, targets)
    score = None if part == "random" else float(metric.compute()[task.primary_metric])
    return ExportVerification(part, images, judge.holds, judge.told, score)


class LogitAgreement:
    """Logits of a network and of a file, of images or of pixels.

    Args:
        size: height and width of the images, to which logits of places are enlarged.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.difference = self.largest = torch.zeros(())
        self.count = self.agree = 0
        self.pixels = False

    def update(self, want: Tensor, got: Tensor) -> None:
        """Take in a batch: (B, K), or (B, K, h, w) and (B, K, H, W)."""
        if want.dim() == 4:
            self.pixels = True
            want = F.interpolate(want.float(), size=self.size, mode="bilinear")
        self.difference = torch.maximum(self.difference, (got - want).abs().max())  # keeps a nan
        self.largest = torch.maximum(self.largest, want.abs().max())
        same = got.argmax(1) == want.argmax(1)
        self.count += same.numel()
        self.agree += int(same.sum())

    @property
    def allowed(self) -> float:
        """The largest difference that is put down to rounding."""
        return TOLERANCE * max(1.0, float(self.largest))

    @property
    def holds(self) -> bool:
        """Whether it is the same network.

        Logits this close can differ in the class only where two classes are as good as tied.
        """
        return float(self.difference) <= self.allowed

    @property
    def told(self) -> str:
        """The difference, what is allowed of it, and how many classes are the same."""
        things = " pixels" if self.pixels else ""
        same = f"{self.agree:,} of {self.count:,}{things}"
        if self.agree == self.count:
            same = "all pixels" if self.pixels else "all of them"
        return (
            f"logits differ by {float(self.difference):.1e} at most ({self.allowed:.1e} allowed), "
            f"the same class for {same}"
        )


def batch_of(data: ImageData) -> int:
    """How many images to judge at a time, so that scores of all their pixels fit the memory."""
    _, height, width = data.train.shape
    return max(1, min(_BATCH, _PIXELS // (height * width)))


def _images(data: ImageData, task: Task) -> Iterator[tuple[Tensor, Any]]:
    """Bytes (B, C, H, W) and targets, batch by batch; None of made-up images."""
    held_out, batch = data.test or data.val, batch_of(data)
    if not held_out:
        generator = torch.Generator().manual_seed(0)
        shape = (_MADE_UP if task.image_labels else batch, *data.train.shape)
        made_up = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        yield from ((pixels, None) for pixels in made_up.split(batch))
        return
    nothing, one = (0.0,) * len(data.mean), (1.0,) * len(data.mean)
    for found in EvalLoader(held_out, batch_size=batch, mean=nothing, std=one):
        yield (found.inputs * 255).round().to(torch.uint8), found.targets
