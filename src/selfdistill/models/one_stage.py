"""torchvision's RetinaNet, FCOS and SSD, split into raw outputs and their losses and boxes."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..functional.boxes import binary_divergence
from ..modules.detector_output import Detections


class OneStageOutput(NamedTuple):
    """Raw outputs of RetinaNet, FCOS or SSD for its N anchors.

    Attributes:
        outputs: `cls_logits` (B, N, K or K + 1), `bbox_regression` (B, N, 4) and, of FCOS,
            `bbox_ctrness` (B, N, 1), in fp32.
        anchors: (N, 4) of each image.
        counts: anchors of each level.
        decoder: computes losses and boxes from them.
    """

    outputs: dict[str, Tensor]
    anchors: list[Tensor]
    counts: list[int]
    decoder: "OneStageDecoder"

    def loss(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """The sum of torchvision's own terms for this network."""
        terms = self.decoder.losses(self, to_torchvision_targets(targets, self.decoder.background))
        return torch.stack(list(terms.values())).sum()

    def soft_loss(self, reference: Self, temperature: float) -> Tensor:
        """Distillation between networks of one form; this one is our choice.

        τ²-scaled divergence of the class scores at each anchor, and the squared difference of the
        raw boxes weighted by the reference's probability of an object; divided by the sum of those.
        """
        student, teacher = self.outputs, {k: v.detach() for k, v in reference.outputs.items()}
        logits = (student["cls_logits"], teacher["cls_logits"])
        divergence = self.decoder.divergence(*logits, temperature)
        weight = self.decoder.object_probability(teacher["cls_logits"])  # (B, N)
        box_error = (student["bbox_regression"] - teacher["bbox_regression"]).square().mean(-1)
        total = (divergence + weight * box_error).sum()
        if "bbox_ctrness" in student:
            pair = (student["bbox_ctrness"], teacher["bbox_ctrness"])
            total = total + (weight * binary_divergence(*pair, temperature)[..., 0]).sum()
        return total / (weight.sum() + 1)

    def compatible_with(self, other: object) -> bool:
        """Whether the other network is of the same kind and has as many anchors and classes."""
        return (
            isinstance(other, OneStageOutput)
            and self.decoder.architecture is other.decoder.architecture
            and self.counts == other.counts
            and self.outputs["cls_logits"].shape == other.outputs["cls_logits"].shape
        )

    def detections(self, size: tuple[int, int]) -> list[Detections]:
        """torchvision's detections, with its thresholds."""
        return to_detections(self.decoder.detections(self.detach(), size), self.decoder.background)

    def detach(self) -> Self:
        """The same without gradients."""
        return self._replace(outputs={k: v.detach() for k, v in self.outputs.items()})


class OneStageDecoder(nn.Module):
    """Anchors, losses and boxes of a one-stage network; it has no parameters.

    Args:
        network: torchvision's, whose functions are used. It is not registered here, so that no
            parameter has two names.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network,)
        self.architecture = type(network)
        self.background = int(self.architecture.__name__ == "SSD")

    @property
    def network(self) -> Any:
        """torchvision's network."""
        return self._network[0]

    def forward(self, x: Tensor, maps: list[Tensor], outputs: dict[str, Tensor]) -> OneStageOutput:
        """Outputs from the batch, the maps that the head takes, and the head's outputs."""
        plain = [torch.empty_like(m, dtype=torch.float32) for m in maps]  # for shapes alone
        anchors = self.network.anchor_generator(image_list(x), plain)
        total = anchors[0].shape[0]
        cells = [m.shape[-2] * m.shape[-1] for m in maps]
        counts = [total // sum(cells) * n for n in cells]
        outputs = {name: out.float() for name, out in outputs.items()}
        return OneStageOutput(outputs, anchors, counts, self)

    def losses(
        self, predictions: OneStageOutput, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """torchvision's terms by name."""
        name, outputs, anchors = (
            self.architecture.__name__,
            predictions.outputs,
            predictions.anchors,
        )
        extra: tuple[Any, ...] = ()
        if name == "FCOS":
            extra = (predictions.counts,)
        elif name == "SSD":
            pairs = zip(anchors, targets, strict=True)
            extra = ([self._matches(of_image, target["boxes"]) for of_image, target in pairs],)
        terms = self.network.compute_loss(targets, outputs, anchors, *extra)
        return cast(dict[str, Tensor], terms)

    def _matches(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Index of the box matched to each anchor, −1 for none, as in SSD's forward pass."""
        from torchvision.ops import box_iou

        if not len(boxes):
            return anchors.new_full((len(anchors),), -1, dtype=torch.int64)
        return cast(Tensor, self.network.proposal_matcher(box_iou(boxes, anchors)))

    def detections(
        self, predictions: OneStageOutput, size: tuple[int, int]
    ) -> list[dict[str, Tensor]]:
        """torchvision's boxes, scores and labels of each image."""
        outputs, anchors, counts, _ = predictions
        levels: Any = (outputs, anchors)
        if not self.background:
            levels = (
                {name: list(out.split(counts, 1)) for name, out in outputs.items()},
                [list(of_image.split(counts)) for of_image in anchors],
            )
        results = self.network.postprocess_detections(*levels, [size] * len(anchors))
        return cast(list[dict[str, Tensor]], results)

    def divergence(self, scores: Tensor, reference: Tensor, temperature: float) -> Tensor:
        """(B, N, K) twice to (B, N); by softmax where a class is the background, else sigmoid."""
        if not self.background:
            return binary_divergence(scores, reference, temperature).sum(-1)
        logs = F.log_softmax(scores / temperature, -1)
        target = F.log_softmax(reference / temperature, -1)
        return temperature**2 * F.kl_div(logs, target, reduction="none", log_target=True).sum(-1)

    def object_probability(self, scores: Tensor) -> Tensor:
        """(B, N, K) to (B, N) in 0 … 1."""
        return 1 - scores.softmax(-1)[..., 0] if self.background else scores.sigmoid().amax(-1)


class OneStageDetector(nn.Module):
    """RetinaNet, FCOS or SSD, under torchvision's own names of parameters.

    Args:
        network: torchvision's.
        cuts: names of the modules at which the stages of its backbone end.
    """

    def __init__(self, network: Any, cuts: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.head = network.backbone, network.head
        self.decoder, self.cuts = OneStageDecoder(network), tuple(cuts)

    def forward(self, x: Tensor) -> OneStageOutput:
        """(B, 3, H, W) to predictions."""
        maps = _listed(self.backbone(x))
        out: OneStageOutput = self.decoder(x, maps, self.head(maps))
        return out


@fx.wrap  # type: ignore[untyped-decorator]  # a traced backbone gives no dictionary to look into
def _listed(maps: dict[str, Tensor]) -> list[Tensor]:
    return list(maps.values())


def image_list(x: Tensor) -> Any:
    """A batch as torchvision's `ImageList`: images of one size, none of them padded."""
    from torchvision.models.detection.image_list import ImageList

    return ImageList(x, [(x.shape[-2], x.shape[-1])] * len(x))


def to_torchvision_targets(targets: Tensor, background: int) -> list[dict[str, Tensor]]:
    """Padded rows (B, M, 5) to torchvision's targets; an image may have no box."""
    boxes = [rows[rows[:, 0] >= 0].float() for rows in targets]
    return [{"boxes": b[:, 1:], "labels": b[:, 0].long() + background} for b in boxes]


def to_detections(results: list[dict[str, Tensor]], background: int) -> list[Detections]:
    """torchvision's results as detections, with classes from 0."""
    return [Detections(r["boxes"], r["scores"], r["labels"] - background) for r in results]
