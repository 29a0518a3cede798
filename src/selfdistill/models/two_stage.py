"""torchvision's Faster R-CNN, with maps apart from losses and boxes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..core import ConfigError
from ..modules.detector_output import Detections
from .one_stage import image_list, to_detections, to_torchvision_targets


class TwoStageOutput(NamedTuple):
    """The maps that Faster R-CNN proposes and judges by; both stages run when they are read.

    Which places its second stage looks at depends on the boxes to be found, so there are no outputs
    apart from the loss, and two of these networks do not compare.

    Attributes:
        maps: of the pyramid, by name, in fp32.
        images: the batch.
        proposing: torchvision's network, whose functions are used.
    """

    maps: dict[str, Tensor]
    images: Tensor
    proposing: "TwoStageDecoder"

    def loss(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The sum of the four terms of the proposals and of the regions."""
        terms = self.proposing.run(self, to_torchvision_targets(targets, 1))[1]
        return torch.stack(list(terms.values())).sum()

    def soft_loss(self, reference: Self, temperature: float) -> Tensor:
        """Raises `ConfigError`: outputs of two stages do not compare."""
        raise ConfigError("outputs of Faster R-CNN do not compare; take a method on features")

    def compatible_with(self, other: object) -> bool:
        """Never."""
        return False

    def detections(self, size: tuple[int, int]) -> list[Detections]:
        """What torchvision makes of them, with its thresholds."""
        with torch.no_grad():
            return to_detections(self.proposing.run(self, None)[0], 1)

    def detach(self) -> Self:
        """The same without gradients."""
        return self._replace(maps={name: m.detach() for name, m in self.maps.items()})


class TwoStageDecoder(nn.Module):
    """From the maps of Faster R-CNN to its predictions; its two stages are registered elsewhere.

    Args:
        network: torchvision's.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self._stages: tuple[Any, Any] = (network.rpn, network.roi_heads)

    def forward(self, x: Tensor, maps: dict[str, Tensor]) -> TwoStageOutput:
        """The batch and its maps."""
        return TwoStageOutput({k: m.float() for k, m in maps.items()}, x, self)

    def run(
        self, said: TwoStageOutput, truths: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """What is found, and where the truth is given, the losses."""
        proposals, regions = self._stages
        batch = image_list(said.images)
        with _training(self._stages, truths is not None):
            boxes, first = proposals(batch, said.maps, truths)
            found, second = regions(said.maps, boxes, batch.image_sizes, truths)
        return found, {**first, **second}


class FasterRCNN(nn.Module):
    """Faster R-CNN under torchvision's own names of parameters.

    Args:
        network: torchvision's.
        cuts: where the stages of its backbone end.
    """

    def __init__(self, network: Any, cuts: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = network.backbone, network.rpn, network.roi_heads
        self.proposing, self.cuts = TwoStageDecoder(network), tuple(cuts)

    def forward(self, x: Tensor) -> TwoStageOutput:
        """(B, 3, H, W) to predictions."""
        out: TwoStageOutput = self.proposing(x, self.backbone(x))
        return out


@contextmanager
def _training(stages: tuple[nn.Module, ...], mode: bool) -> Iterator[None]:
    """The stages ask their own flag whether losses are wanted; the layers inside keep theirs."""
    before = [stage.training for stage in stages]
    try:
        for stage in stages:
            stage.training = mode
        yield
    finally:
        for stage, was in zip(stages, before, strict=True):
            stage.training = was
