"""torchvision's Faster R-CNN, split into feature maps and their losses and boxes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ..core import ConfigError
from ..modules.detector_output import Detections
from .one_stage import image_list, to_detections, to_torchvision_targets


class TwoStageOutput(NamedTuple):
    """Feature maps of Faster R-CNN; its two stages run when a loss or boxes are computed.

    The regions of its second stage depend on the target boxes, so there are no outputs apart from
    the loss, and two of these networks do not compare.

    Attributes:
        maps: of the pyramid, by name, in fp32.
        images: the batch.
        decoder: the two stages.
    """

    maps: dict[str, Tensor]
    images: Tensor
    decoder: "TwoStageDecoder"

    def loss(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The sum of the four terms of the proposals and of the regions."""
        terms = self.decoder.run(self, to_torchvision_targets(targets, 1))[1]
        return torch.stack(list(terms.values())).sum()

    def soft_loss(self, reference: Self, temperature: float) -> Tensor:
        """Raises `ConfigError`: outputs of two stages do not compare."""
        raise ConfigError("outputs of Faster R-CNN do not compare; take a method on features")

    def compatible_with(self, other: object) -> bool:
        """Never."""
        return False

    def detections(self, size: tuple[int, int]) -> list[Detections]:
        """torchvision's detections, with its thresholds."""
        with torch.no_grad():
            return to_detections(self.decoder.run(self, None)[0], 1)

    def detach(self) -> Self:
        """The same without gradients."""
        return self._replace(maps={name: m.detach() for name, m in self.maps.items()})


class TwoStageDecoder(nn.Module):
    """Losses and boxes of Faster R-CNN from its maps; its stages are registered elsewhere.

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
        self, predictions: TwoStageOutput, targets: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Results, and the losses if there are targets."""
        proposals, regions = self._stages
        batch = image_list(predictions.images)
        with _training(self._stages, targets is not None):
            boxes, proposal_losses = proposals(batch, predictions.maps, targets)
            results, region_losses = regions(predictions.maps, boxes, batch.image_sizes, targets)
        return results, {**proposal_losses, **region_losses}


class FasterRCNN(nn.Module):
    """Faster R-CNN under torchvision's own names of parameters.

    Args:
        network: torchvision's.
        cuts: names of the modules at which the stages of its backbone end.
    """

    def __init__(self, network: Any, cuts: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = network.backbone, network.rpn, network.roi_heads
        self.decoder, self.cuts = TwoStageDecoder(network), tuple(cuts)

    def forward(self, x: Tensor) -> TwoStageOutput:
        """(B, 3, H, W) to predictions."""
        out: TwoStageOutput = self.decoder(x, self.backbone(x))
        return out


@contextmanager
def _training(stages: tuple[nn.Module, ...], mode: bool) -> Iterator[None]:
    """Set the flag by which the stages choose losses or boxes; the layers inside keep theirs."""
    modes = [stage.training for stage in stages]
    try:
        for stage in stages:
            stage.training = mode
        yield
    finally:
        for stage, previous in zip(stages, modes, strict=True):
            stage.training = previous
