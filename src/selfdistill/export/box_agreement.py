"""Boxes that an exported detector finds, beside those of the network that it was made of."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..functional.boxes import IOU_THRESHOLD, MAX_DETECTIONS, MIN_SCORE
from ..modules.detector_output import Detections, DetectorOutput
from ..modules.exportable_detector import DecodableOutput

_CORNERS = 1e-4  # of the image's longer side
_SCORES, _IOU = 1e-3, 1e-3  # of a score, of an overlap


class ExportedDetections:
    """What a file says of a batch, for a metric that is made for a network's predictions.

    Args:
        boxes: (B, D, 4) in pixels.
        scores: (B, D); 0 where there is no box.
        labels: (B, D).
    """

    def __init__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
        self.found = [
            Detections(b[s > 0], s[s > 0], k[s > 0])
            for b, s, k in zip(boxes, scores, labels, strict=True)
        ]

    def detections(self, size: tuple[int, int]) -> list[Detections]:
        """What is seen in each image."""
        return self.found


class BoxAgreement:
    """The surest boxes of a network and of a file.

    A box is found again if the file has one of the same class, with corners and score that differ
    by no more than rounding. Where two scores or an overlap and its threshold are as good as equal,
    rounding decides which box stays, and with it which others go: what only one of the two keeps
    must be there in the other, too, and give way to a box that it keeps.

    Args:
        size: height and width of the images in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.corners, self.scores = 0.0, 0.0
        self.count = self.agree = self.wrong = 0

    @property
    def allowed(self) -> float:
        """The largest distance of two corners, in pixels, that is put down to rounding."""
        return _CORNERS * max(self.size)

    def update(self, want: DetectorOutput, got: DetectorOutput | ExportedDetections) -> None:
        """Take in a batch: what the network says of it, and what the file says."""
        pairs = zip(want.detections(self.size), got.detections(self.size), strict=True)
        for i, (mine, theirs) in enumerate(pairs):
            same = self._same(mine, theirs)
            self.count += max(same.shape)
            self.agree += int(min(same.any(1).sum(), same.any(0).sum()))
            missing, more = _taken(mine, ~same.any(1)), _taken(theirs, ~same.any(0))
            self.wrong += int((~_gives_way(missing, theirs)).sum())
            if len(more.scores):
                there = self._there(more, want, i)
                self.wrong += int((~(there & _gives_way(more, mine))).sum())

    def _same(self, mine: Detections, theirs: Detections) -> Tensor:
        """(D, D) bool."""
        corners = (mine.boxes[:, None] - theirs.boxes).abs().amax(-1)
        scores = (mine.scores[:, None] - theirs.scores).abs()
        same = (mine.labels[:, None] == theirs.labels) & (corners <= self.allowed)
        same &= scores <= _SCORES * mine.scores[:, None]
        if same.any():
            self.corners = max(self.corners, _farthest(corners, same))
            self.scores = max(self.scores, _farthest(scores, same))
        return same

    def _there(self, more: Detections, want: DetectorOutput, image: int) -> Tensor:
        """Whether boxes are among all that the network has of an image, kept or not."""
        if not isinstance(want, DecodableOutput):
            return torch.zeros_like(more.labels, dtype=torch.bool)
        boxes, scores = (part[image] for part in want.decoded(self.size))
        near = (more.boxes[:, None] - boxes).abs().amax(-1) <= self.allowed  # (D, N)
        gaps = (more.scores[:, None] - scores[:, more.labels].T).abs()
        return (near & (gaps <= _SCORES * more.scores[:, None])).any(1)

    @property
    def holds(self) -> bool:
        """Whether it is the same detector."""
        return not self.wrong

    @property
    def told(self) -> str:
        """How many boxes are the same, and how far they are apart."""
        every, rest = "all", ""
        if self.agree < self.count:
            every, rest = f"{self.agree:,} of", ", the others where rounding decides between two"
        if self.wrong:
            rest = f", {self.wrong:,} differ by more than rounding"
        return (
            f"{every} {self.count:,} boxes are the same{rest}, corners to {self.corners:.1e} "
            f"pixels ({self.allowed:.1e} allowed), scores to {self.scores:.1e}"
        )


def _taken(found: Detections, which: Tensor) -> Detections:
    return Detections(*(part[which] for part in found))


def _gives_way(strays: Detections, kept: Detections) -> Tensor:
    """(D,) bool: whether a box that is not kept has a reason in what is, but for rounding."""
    least = strays.scores * (1 - _SCORES)
    if len(kept.scores) == MAX_DETECTIONS and len(strays.scores):
        late = least <= kept.scores[-1]
    else:
        late = torch.zeros_like(least, dtype=torch.bool)
    close = box_iou(strays.boxes, kept.boxes) > IOU_THRESHOLD - _IOU
    close &= (strays.labels[:, None] == kept.labels) & (least[:, None] <= kept.scores)
    return late | close.any(1) | (least <= MIN_SCORE)


def _farthest(gaps: Tensor, same: Tensor) -> float:
    """The largest gap between a box and the nearest of those that may be the same."""
    return float(torch.where(same, gaps, torch.inf).amin(1)[same.any(1)].max())
