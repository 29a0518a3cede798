"""A teacher's outputs as they are stored: all scores, or the largest and a number for the rest.

That the largest few are enough, and that the others may share what is left, is of TinyViT (Wu et
al. 2022, https://arxiv.org/abs/2207.10666) and FKD (Shen and Xing 2022,
https://arxiv.org/abs/2112.01528), which keep probabilities; logits serve every temperature.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..core import ConfigError

Precision = Literal["fp32", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}


class OutputEncoding(NamedTuple):
    """How the scores (B, C, ...) of C classes are stored, of images or of each place.

    Of the `kept` largest the scores and the classes are stored. All other classes get one score
    between them, whose softmax at temperature τ has their mass, spread evenly:
    τ (log Σ exp(z / τ) − log n), the sum being over the n classes that are not kept.

    Attributes:
        classes: C.
        kept: how many of the largest scores are stored; C for all, which is exact in fp32.
        precision: of the stored scores.
        temperature: τ > 0, at which the mass of the rest is exact.
        pooled_width: channels of the pooled last feature, which is stored whole beside the scores;
            0 where nobody reads it.
    """

    classes: int
    kept: int
    precision: Precision = "fp32"
    temperature: float = 1.0
    pooled_width: int = 0

    def encode(self, outputs: Tensor, pooled: Tensor | None = None) -> dict[str, Tensor]:
        """What is stored, by name; the first dimension of all is B.

        Args:
            outputs: scores (B, C, ...).
            pooled: features (B, `pooled_width`), if they are stored.

        Raises:
            ConfigError: a number is too large for the precision.
        """
        scores = outputs.detach().float()
        stored = {} if pooled is None else {"pooled": self._rounded(pooled.detach().float())}
        if self.kept == self.classes:
            return {**stored, "scores": self._rounded(scores)}
        largest, classes = scores.topk(self.kept, 1)
        others = scores.scatter(1, classes, -math.inf) / self.temperature
        mean = others.logsumexp(1, keepdim=True) - math.log(self.classes - self.kept)
        return {
            **stored,
            "scores": self._rounded(largest),
            "classes": classes.to(self._class_type),
            "rest": self._rounded(self.temperature * mean),
        }

    def decode(self, stored: Mapping[str, Tensor]) -> Tensor:
        """The scores (B, C, ...) in fp32."""
        scores = stored["scores"].float()
        if self.kept == self.classes:
            return scores
        rest = stored["rest"].float()
        shape = (len(rest), self.classes, *rest.shape[2:])
        return rest.expand(shape).scatter(1, stored["classes"].long(), scores)

    def decode_pooled(self, stored: Mapping[str, Tensor]) -> Tensor:
        """The pooled features (B, `pooled_width`) in fp32."""
        return stored["pooled"].float()

    def num_bytes(self, places: int = 1) -> int:
        """Bytes of an image: of the scores of so many places, and of its feature."""
        width = DTYPES[self.precision].itemsize
        pooled = self.pooled_width * width
        if self.kept == self.classes:
            return pooled + places * self.classes * width
        return pooled + places * (self.kept * (width + self._class_type.itemsize) + width)

    @property
    def _class_type(self) -> torch.dtype:
        if self.classes <= 1 << 8:
            return torch.uint8
        return torch.int16 if self.classes <= 1 << 15 else torch.int32

    def _rounded(self, scores: Tensor) -> Tensor:
        rounded = scores.to(DTYPES[self.precision])
        if self.precision != "fp32" and bool((rounded.isinf() & scores.isfinite()).any()):
            raise ConfigError(
                f"a number of the teacher's, {float(scores.abs().max()):.3g}, is beyond fp16; keep "
                "them by --cache-precision fp32"
            )
        return rounded
