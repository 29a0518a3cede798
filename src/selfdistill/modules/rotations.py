"""Images turned by 0°, 90°, 180° and 270°, and heads that tell class and turn together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core import ConfigError, Task
from ..taps import Taps
from ..taps.feature_map import as_map
from ..taps.fx_split import reinitialized_copy, split_at

TURNS = 4


def check_turnable(task: Task) -> None:
    """Raises `ConfigError` if the images are not as high as they are wide."""
    height, width = task.example.shape[-2:]
    if height != width:
        raise ConfigError(
            f"this method turns images by 90°, and these are {height}×{width}; give image_size, "
            "which makes them square"
        )


def turned(images: Sequence[Tensor]) -> Tensor:
    """The k-th of four batches (B, C, H, H) turned by k · 90°: (4B, C, H, H), one turn after other.

    So the first B are not turned, and row k·B + b is image b of batch k.
    """
    return torch.cat([x.rot90(k, (2, 3)) for k, x in enumerate(images)])


def joint_labels(labels: Tensor) -> Tensor:
    """Labels (4B,) of class and turn of images as `turned` orders them: 4·class + turn."""
    turns = torch.arange(TURNS, device=labels.device).repeat_interleave(len(labels))
    return TURNS * labels.repeat(TURNS) + turns


class JointHeads(nn.Module):
    """A head behind every tap that tells the class and the turn of an image.

    Auxiliary classifiers of HSAKD (Yang et al. 2021, https://arxiv.org/abs/2107.13715): behind each
    tap but the last come copies of the stages that follow in the network, initialized anew; behind
    the last one comes one more stage of equal width. Then the mean over places and a linear layer.
    As that further stage the authors' code repeats the network's own blocks without a stride, which
    cannot be made out of any network, so here it is two 3×3 convolutions with BN and ReLU.

    Args:
        student: a network that can be cut at all of its taps.
        classes: number of classes K.

    Raises:
        ConfigError: the network cannot be cut.
    """

    def __init__(self, student: Taps, classes: int) -> None:
        super().__init__()
        _, *stages, _ = split_at(student.network, student.names)
        self.prefix_tokens = student.prefix_tokens
        self.stages = nn.ModuleList(
            reinitialized_copy(nn.Sequential(*stages[i:])) for i in range(len(stages))
        )
        width = list(student.shapes.values())[-1][0]
        self.last_stage = nn.Sequential(_convolution(width), _convolution(width))
        self.linear = nn.ModuleList(
            nn.Linear(width, TURNS * classes) for _ in range(len(stages) + 1)
        )

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Logits of class and turn by tap, (B, 4K) each.

        Args:
            features: raw ones, by tap (`Taps.forward_features(x, raw=True)`).
            size: height and width of the images.
        """
        *shallow, last = features
        ends = [stages(x) for stages, x in zip(self.stages, shallow, strict=True)]
        maps = [as_map(x, size, self.prefix_tokens) for x in (*ends, last)]
        maps[-1] = self.last_stage(maps[-1])
        return [head(x.mean((2, 3))) for head, x in zip(self.linear, maps, strict=True)]


def _convolution(width: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())
