"""A critic of the whole map and a vector, beside those of the map's cells."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..functional.information_bounds import Scores, roll_batch


class GlobalCritic(nn.Module):
    """One score an image: convolutions summarize the map, layers join the vector.

    The global critic of Deep InfoMax as its public PyTorch port builds it (two 3×3 convolutions,
    three linear layers), with padding and a pooling to 4×4, so that maps of any size fit.

    Args:
        map_channels, vector_channels: of the map (B, C, H, W) and the vector (B, D). Of a clip's
            map the mean over time is read.
        width: of the two hidden linear layers.
    """

    def __init__(self, map_channels: int, vector_channels: int, width: int = 512) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(map_channels, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 32, 3, padding=1)
        )
        self.joined = nn.Linear(32 * 16 + vector_channels, width)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, feature_map: Tensor, vector: Tensor, shift: Tensor) -> Scores:
        """Scores (B, 1) and (B, 1, 1); the negatives of a vector are the maps rolled by `shift`."""
        if feature_map.dim() == 5:
            feature_map = feature_map.mean(2)
        summary = F.adaptive_avg_pool2d(self.encode(feature_map), 4).flatten(1)  # (B, 512)
        map_weight, vector_weight = self.joined.weight.split((32 * 16, vector.shape[1]), dim=1)
        from_map = F.linear(summary, map_weight)
        from_vector = F.linear(vector, vector_weight, self.joined.bias)
        positive = self.head(from_map + from_vector)
        negative = self.head(roll_batch(from_map, shift) + from_vector)
        return Scores(positive, negative[..., None])
