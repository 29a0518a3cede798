"""Handwritten digits, which come with the package."""

from pathlib import Path

import numpy as np
import torch

from .hold_out import hold_out
from .in_memory import InMemoryImages
from .splits import DatasetSplits

_TEST = 360


def read_digits() -> DatasetSplits:
    """1797 handwritten digits of UCI, 8 × 8 pixels of 0 … 16; 360 are the test split.

    Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49; see `digits.md` beside the file.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as digits:
        pixels, labels = digits["images"].astype(np.float64), digits["labels"].astype(np.int64)
    gray = torch.from_numpy(pixels * (255 / 16)).round().to(torch.uint8)[:, None]
    train, test = hold_out(InMemoryImages(gray, torch.from_numpy(labels)), _TEST, "test")
    return DatasetSplits(train, None, test, [str(d) for d in range(10)], flip=False)
