"""A network with the normalization of its input built in, ready for deployment."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class NormalizedInput(nn.Module):
    """A network that takes images in 0 … 1 and normalizes them itself.

    Args:
        network: trained on normalized images, as `Task.inference_module` prepares it.
        mean, std: of each channel, of pixels in [0, 1], as in training.
        sides: of an image 2, of a clip with its times 3.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], sides: int = 2
    ) -> None:
        super().__init__()
        self.network = network
        channels = (-1, *[1] * sides)
        deviation = torch.tensor(std, dtype=torch.float64).view(channels)  # (C, 1, 1)
        center = torch.tensor(mean, dtype=torch.float64).view(channels)
        self.register_buffer("scale", (1 / deviation).float())
        self.register_buffer("shift", (-center / deviation).float())

    def forward(self, images: Tensor) -> Any:
        """Images or clips, float32 in 0 … 1, to the network's output, (B, K) of a classifier."""
        return self.network(images * self.scale + self.shift)
