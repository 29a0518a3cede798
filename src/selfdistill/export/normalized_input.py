"""A network as it is put to use: it takes images and brings them to its own scale."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class NormalizedInput(nn.Module):
    """Images in, the network's own output out.

    Args:
        network: trained on normalized images, as `Task.inference_module` makes it ready.
        mean, std: one number per channel, of pixels in [0, 1], as it was trained with.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        spread = torch.tensor(std, dtype=torch.float64)[:, None, None]  # (C, 1, 1)
        middle = torch.tensor(mean, dtype=torch.float64)[:, None, None]
        self.register_buffer("scale", (1 / spread).float())
        self.register_buffer("shift", (-middle / spread).float())

    def forward(self, images: Tensor) -> Any:
        """(B, C, H, W) float32 in 0 … 1 to the network's output, (B, K) of a classifier."""
        return self.network(images * self.scale + self.shift)
