"""Classification of clips: one class per clip of a video."""

from torch import nn

from .classification import Classification


class Clips(Classification):
    """Classification whose inputs are clips, (B, C, T, H, W).

    Features keep their times, so the places of a map are in space and time.

    Args:
        classes: their names, in the order of their labels.
        example: two clips as the network takes them, (2, C, T, H, W).
        label_smoothing: of the supervised loss, in [0, 1).

    Raises:
        DataError: fewer than two classes.
    """

    name = "clips"
    clips = True

    def head(self, channels: int) -> nn.Module:
        """The mean over all places and times, and one linear layer."""
        pool = nn.Sequential(nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        return nn.Sequential(*pool, nn.Linear(channels, len(self.classes)))
