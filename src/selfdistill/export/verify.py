"""Whether an exported file says what the network said in training."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..core import Method
from ..data import EvalLoader, ImageData
from ..data.augment import normalise

TOLERANCE = 1e-4
"""Of the largest logit, or of 1 if that is more: float32 has seven digits, and another order of
summation costs some of them in every layer."""

_BATCH = 256
_MADE_UP = 512  # images, where the data hold none out


class Comparison(NamedTuple):
    """An exported file beside the method it was cut from.

    Attributes:
        part: of the data: "test", "val", or "random" where there were neither.
        images: how many there were.
        difference: the largest between two logits.
        largest: the largest logit, absolute.
        agree: images that both put into the same class.
        right: images that the file puts into the right class; None for random ones.
    """

    part: str
    images: int
    difference: float
    largest: float
    agree: int
    right: int | None

    @property
    def allowed(self) -> float:
        """The largest difference that is put down to rounding."""
        return TOLERANCE * max(1.0, self.largest)

    @property
    def holds(self) -> bool:
        """Whether it is the same network.

        Logits this close can differ in the class only where two classes are as good as tied.
        """
        return self.difference <= self.allowed


@torch.no_grad()
def compare(
    method: Method, name: str, run: Callable[[Tensor], Tensor], data: ImageData
) -> Comparison:
    """Run both over the whole test set, or the validation set, or made-up images.

    Args:
        method: trained, on the CPU, in evaluation mode.
        name: the predictor that was exported.
        run: the file: images (B, C, H, W) float32 in 0 … 1 to logits (B, K).
        data: at the size that the file was made for.
    """
    part = "test" if data.test else "val" if data.val else "random"
    difference = largest = torch.zeros(())
    images = agree = right = 0
    for pixels, labels in _images(data):
        want = method.predict(normalise(pixels, data.mean, data.std))[name]
        got = run(pixels.float() / 255)
        difference = torch.maximum(difference, (got - want).abs().max())  # keeps a nan
        largest = torch.maximum(largest, want.abs().max())
        images += len(pixels)
        agree += int((got.argmax(1) == want.argmax(1)).sum())
        right += int((got.argmax(1) == labels).sum())
    known = None if part == "random" else right
    return Comparison(part, images, float(difference), float(largest), agree, known)


def _images(data: ImageData) -> Iterator[tuple[Tensor, Tensor]]:
    """Bytes (B, C, H, W) and labels (B,), batch by batch."""
    held_out = data.test or data.val
    if not held_out:
        generator = torch.Generator().manual_seed(0)
        shape = (_MADE_UP, *data.train.shape)
        made_up = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        yield from ((pixels, torch.zeros(len(pixels))) for pixels in made_up.split(_BATCH))
        return
    nothing, one = (0.0,) * len(data.mean), (1.0,) * len(data.mean)
    for batch in EvalLoader(held_out, batch_size=_BATCH, mean=nothing, std=one):
        yield (batch.inputs * 255).round().to(torch.uint8), batch.targets
