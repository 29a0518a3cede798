"""Discriminators of features, for adversarial losses."""

from torch import Tensor, nn


class Discriminator(nn.Module):
    """Scores of a pooled feature map by two linear layers with a ReLU between.

    Args:
        channels: of the map.
        width: of the hidden layer.
        outputs: scores a map.
    """

    def __init__(self, channels: int, width: int = 128, outputs: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs)."""
        out: Tensor = self.layers(x.mean((2, 3)))
        return out
