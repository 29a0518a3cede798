"""Images turned by 0°, 90°, 180° and 270°, and heads that tell class and turn together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core import ConfigError, Task
from ..taps import Taps
from ..taps.fx_split import reinitialized_copy, split_at
from ..taps.stage_detection import evaluation_mode
from .last_layer import replace_last_layer

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

    Auxiliary classifiers of HSAKD (Yang et al. 2021, https://arxiv.org/abs/2107.13715): a head is a
    copy of what follows in the network, initialized anew, with four times the outputs. Before that
    behind the last tap comes one more stage of equal width, for which the authors' code repeats the
    network's own blocks without a stride. That cannot be made out of any network, so here it is two
    3×3 convolutions with BN and ReLU, and none where the feature is no map.

    Args:
        student: a network that can be cut at all of its taps, and that ends with a linear layer or
            a convolution of an output a class.
        task: what the labels mean; one class an image.

    Raises:
        ConfigError: the network cannot be cut, or ends with something else.
    """

    def __init__(self, student: Taps, task: Task) -> None:
        super().__init__()
        _, *parts = split_at(student.network, student.names)
        copies = [reinitialized_copy(nn.Sequential(*parts[i:])) for i in range(len(parts))]
        for each in copies:
            outputs = replace_last_layer(each, TURNS * len(task.classes))
            if outputs != len(task.classes):
                raise ConfigError(
                    f"the last layer of the network has {outputs} outputs and not one for each of "
                    f"{len(task.classes)} classes, so no head can be made of it; take another one"
                )
        self.heads = nn.ModuleList(copies)
        with evaluation_mode(student):
            _, features = student.forward_features(task.example, raw=True)
        *_, last = features.values()
        width = student.shapes[student.names[-1]][0]
        is_map = last.dim() == 4 and last.shape[1] == width
        stage = nn.Sequential(_convolution(width), _convolution(width))
        self.last_stage = stage if is_map else nn.Identity()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Logits of class and turn by tap, (B, 4K) each, of raw features by tap.

        Raw features are those of `Taps.forward_features(x, raw=True)`.
        """
        *shallow, last = features
        inputs = (*shallow, self.last_stage(last))
        return [head(x) for head, x in zip(self.heads, inputs, strict=True)]


def _convolution(width: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())
