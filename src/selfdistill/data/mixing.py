"""Mixup and CutMix of a batch with itself, and of its labels, each draw keyed by its sample."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core import keyed_random
from ..functional.mixing import batch_permutation, beta, cutmix_box

_PARTNER, _RATIO, _BOX, _KIND = map(
    keyed_random.purpose,
    ("partner to mix with", "ratio to mix by", "box to mix", "kind of mixture"),
)


class Mixing(NamedTuple):
    """Mixtures of the images of a batch in pairs.

    Each image is mixed with another one of the batch of its process and pass, or, rarely, with
    itself, by a ratio of its own. Where there are both kinds, each image gets one of them, by even
    chance. All views of an image are mixed alike.

    Attributes:
        seed: key of every draw.
        classes: number of them.
        mixup: concentration a > 0 of mixup's Beta(a, a) (Zhang et al. 2018,
            https://arxiv.org/abs/1710.09412); 0 for none.
        cutmix: that of CutMix (Yun et al. 2019, https://arxiv.org/abs/1905.04899); 0 for none.
    """

    seed: int
    classes: int
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def active(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def partners(self, epoch: int, index: Tensor) -> Tensor:
        """Which sample of the batch each one is mixed with, (B,) int64."""
        return batch_permutation(_PARTNER, self.seed, epoch, index)

    def cut(self, epoch: int, index: Tensor) -> Tensor:
        """Which samples get CutMix, (B,) bool; the others get mixup."""
        if not (self.mixup and self.cutmix):
            return torch.full_like(index, bool(self.cutmix), dtype=torch.bool)
        return keyed_random.integers(2, _KIND, self.seed, epoch, index) == 1

    def weights(self, epoch: int, index: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """How much of each sample stays.

        Returns:
            (B, H, W) float32 at each pixel, and (B,) of its label, their mean.
        """
        cut = self.cut(epoch, index)
        ratio = torch.ones_like(index, dtype=torch.float32)
        for concentration, chosen in ((self.mixup, ~cut), (self.cutmix, cut)):
            if concentration:
                drawn = beta(concentration, _RATIO, self.seed, epoch, index)
                ratio = torch.where(chosen, drawn, ratio)
        boxes, left = cutmix_box((height, width), ratio, _BOX, self.seed, epoch, index)
        kept = torch.where(cut, left, ratio)
        pixels = torch.where(cut[:, None, None], (~boxes).float(), ratio[:, None, None])
        return pixels, kept

    def images(self, images: Tensor, epoch: int, index: Tensor) -> Tensor:
        """Normalized images (B, C, H, W), or clips (B, C, T, H, W), mixed in pairs."""
        pixels, _ = self.weights(epoch, index, *images.shape[-2:])
        weight = pixels.view(len(images), *[1] * (images.dim() - 3), *pixels.shape[1:])
        return weight * images + (1 - weight) * images[self.partners(epoch, index)]

    def labels(self, labels: Tensor, epoch: int, index: Tensor, height: int, width: int) -> Tensor:
        """Labels (B,) int64 of images of that size as mixtures, (B, K) float32."""
        _, kept = self.weights(epoch, index, height, width)
        classes = F.one_hot(labels, self.classes).float()
        return kept[:, None] * classes + (1 - kept)[:, None] * classes[self.partners(epoch, index)]
