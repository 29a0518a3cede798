"""torchvision's RetinaNet, FCOS and SSD, with raw outputs apart from losses and boxes."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..functional.boxes import binary_divergence
from ..modules.detector_output import Detections


class OneStageOutput(NamedTuple):
    """What RetinaNet, FCOS and SSD say of every anchor, N in all.

    Attributes:
        outputs: `cls_logits` (B, N, K or K + 1), `bbox_regression` (B, N, 4) and, of FCOS,
            `bbox_ctrness` (B, N, 1), in fp32.
        anchors: (N, 4) of each image.
        counts: anchors of each level.
        reading: makes losses and boxes of them.
    """

    outputs: dict[str, Tensor]
    anchors: list[Tensor]
    counts: list[int]
    reading: "OneStageDecoder"

    def loss(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The sum of torchvision's own terms for this network."""
        terms = self.reading.losses(self, to_torchvision_targets(targets, self.reading.background))
        return torch.stack(list(terms.values())).sum()

    def soft_loss(self, reference: Self, temperature: float) -> Tensor:
        """Distillation between networks of one form; this one is our choice.

        τ²-scaled divergence of the class scores at each anchor, and the squared gap of the raw
        boxes as far as the reference sees an object there; divided by how much of that it sees.
        """
        mine, theirs = self.outputs, {k: v.detach() for k, v in reference.outputs.items()}
        apart = self.reading.divergence(mine["cls_logits"], theirs["cls_logits"], temperature)
        weight = self.reading.certainty(theirs["cls_logits"])  # (B, N)
        gap = (mine["bbox_regression"] - theirs["bbox_regression"]).square().mean(-1)
        total = (apart + weight * gap).sum()
        if "bbox_ctrness" in mine:
            pair = (mine["bbox_ctrness"], theirs["bbox_ctrness"])
            total = total + (weight * binary_divergence(*pair, temperature)[..., 0]).sum()
        return total / (weight.sum() + 1)

    def compatible_with(self, other: object) -> bool:
        """Whether the other network is of the same kind and has as many anchors and classes."""
        return (
            isinstance(other, OneStageOutput)
            and self.reading.kind is other.reading.kind
            and self.counts == other.counts
            and self.outputs["cls_logits"].shape == other.outputs["cls_logits"].shape
        )

    def detections(self, size: tuple[int, int]) -> list[Detections]:
        """What torchvision makes of them, with its thresholds."""
        return to_detections(self.reading.detections(self.detach(), size), self.reading.background)

    def detach(self) -> Self:
        """The same without gradients."""
        return self._replace(outputs={k: v.detach() for k, v in self.outputs.items()})


class OneStageDecoder(nn.Module):
    """From the maps and outputs of a one-stage network to its predictions; nothing in it trains.

    Args:
        network: torchvision's, whose functions are used. It is not registered here, so that no
            parameter has two names.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network,)
        self.kind = type(network)
        self.background = int(self.kind.__name__ == "SSD")

    @property
    def network(self) -> Any:
        """torchvision's network."""
        return self._network[0]

    def forward(self, x: Tensor, maps: list[Tensor], outputs: dict[str, Tensor]) -> OneStageOutput:
        """The batch, the maps that the head saw, and what it said."""
        plain = [torch.empty_like(m, dtype=torch.float32) for m in maps]  # for shapes alone
        anchors = self.network.anchor_generator(image_list(x), plain)
        total = anchors[0].shape[0]
        cells = [m.shape[-2] * m.shape[-1] for m in maps]
        counts = [total // sum(cells) * n for n in cells]
        outputs = {name: out.float() for name, out in outputs.items()}
        return OneStageOutput(outputs, anchors, counts, self)

    def losses(self, said: OneStageOutput, truths: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """torchvision's terms by name."""
        name, network = self.kind.__name__, self.network
        further: tuple[Any, ...] = ()
        if name == "FCOS":
            further = (said.counts,)
        elif name == "SSD":
            pairs = zip(said.anchors, truths, strict=True)
            further = ([self._matches(anchors, each["boxes"]) for anchors, each in pairs],)
        terms = network.compute_loss(truths, said.outputs, said.anchors, *further)
        return cast(dict[str, Tensor], terms)

    def _matches(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """The box of each anchor, −1 for none, as SSD's own forward pass finds it."""
        from torchvision.ops import box_iou

        if not len(boxes):
            return anchors.new_full((len(anchors),), -1, dtype=torch.int64)
        return cast(Tensor, self.network.proposal_matcher(box_iou(boxes, anchors)))

    def detections(self, said: OneStageOutput, size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """torchvision's boxes, scores and labels of each image."""
        sizes = [size] * len(said.anchors)
        if self.background:
            found = self.network.postprocess_detections(said.outputs, said.anchors, sizes)
        else:
            outputs = {k: list(v.split(said.counts, 1)) for k, v in said.outputs.items()}
            anchors = [list(each.split(said.counts)) for each in said.anchors]
            found = self.network.postprocess_detections(outputs, anchors, sizes)
        return cast(list[dict[str, Tensor]], found)

    def divergence(self, scores: Tensor, reference: Tensor, temperature: float) -> Tensor:
        """(B, N, K) twice to (B, N), by softmax where one of the classes is the background."""
        if not self.background:
            return binary_divergence(scores, reference, temperature).sum(-1)
        logs = F.log_softmax(scores / temperature, -1)
        target = F.log_softmax(reference / temperature, -1)
        return temperature**2 * F.kl_div(logs, target, reduction="none", log_target=True).sum(-1)

    def certainty(self, scores: Tensor) -> Tensor:
        """(B, N, K) to (B, N) in 0 … 1: how sure it is that there is an object."""
        return 1 - scores.softmax(-1)[..., 0] if self.background else scores.sigmoid().amax(-1)


class OneStageDetector(nn.Module):
    """RetinaNet, FCOS or SSD, under torchvision's own names of parameters.

    Args:
        network: torchvision's.
        cuts: where the stages of its backbone end.
    """

    def __init__(self, network: Any, cuts: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.head = network.backbone, network.head
        self.reading, self.cuts = OneStageDecoder(network), tuple(cuts)

    def forward(self, x: Tensor) -> OneStageOutput:
        """(B, 3, H, W) to predictions."""
        maps = _listed(self.backbone(x))
        out: OneStageOutput = self.reading(x, maps, self.head(maps))
        return out


@fx.wrap  # type: ignore[untyped-decorator]  # a traced backbone gives no dictionary to look into
def _listed(maps: dict[str, Tensor]) -> list[Tensor]:
    return list(maps.values())


def image_list(x: Tensor) -> Any:
    """A batch as torchvision's parts take it: images of one size, none of them padded."""
    from torchvision.models.detection.image_list import ImageList

    return ImageList(x, [(x.shape[-2], x.shape[-1])] * len(x))


def to_torchvision_targets(targets: Tensor, background: int) -> list[dict[str, Tensor]]:
    """Padded rows as torchvision wants them; an image may have none."""
    there = [rows[rows[:, 0] >= 0].float() for rows in targets]
    return [{"boxes": r[:, 1:], "labels": r[:, 0].long() + background} for r in there]


def to_detections(found: list[dict[str, Tensor]], background: int) -> list[Detections]:
    """What torchvision found, with classes from 0 on."""
    return [Detections(f["boxes"], f["scores"], f["labels"] - background) for f in found]
