"""Comparison of an exported detector's boxes with those of the original network."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..functional.boxes import IOU_THRESHOLD, MAX_DETECTIONS, MIN_SCORE
from ..modules.detector_output import Detections, DetectorOutput
from ..modules.exportable_detector import DecodableOutput

_CORNER_TOLERANCE = 1e-4  # of the image's longer side
_SCORE_TOLERANCE, _IOU_TOLERANCE = 1e-3, 1e-3  # relative, absolute


class ExportedDetections:
    """Boxes that an exported file returns for a batch, in the interface of a `DetectorOutput`.

    Args:
        boxes: (B, D, 4) in pixels.
        scores: (B, D); 0 marks padding.
        labels: (B, D).
    """

    def __init__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
        self.per_image = [
            Detections(b[s > 0], s[s > 0], k[s > 0])
            for b, s, k in zip(boxes, scores, labels, strict=True)
        ]

    def detections(self, size: tuple[int, int]) -> list[Detections]:
        """The boxes of each image."""
        return self.per_image


class BoxAgreement:
    """Agreement of the highest scored boxes of a network and of an exported file.

    Two boxes match if their class is the same and corners and score differ by no more than
    rounding. Where two scores, or an overlap and the NMS threshold, are equal up to rounding,
    either box may be kept, which decides about others in turn. So a box that only one of the two
    keeps is accepted if the other has it among its candidates and keeps a box that suppresses it.

    Args:
        size: height and width of the images in pixels.

    Attributes:
        count: boxes compared.
        matched: boxes that both keep.
        unexplained: boxes that one of the two misses for no reason of rounding.
        corner_error, score_error: the largest differences of matching boxes.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.corner_error, self.score_error = 0.0, 0.0
        self.count = self.matched = self.unexplained = 0

    @property
    def tolerance(self) -> float:
        """The largest distance of two corners, in pixels, that rounding explains."""
        return _CORNER_TOLERANCE * max(self.size)

    def update(self, expected: DetectorOutput, actual: DetectorOutput | ExportedDetections) -> None:
        """Compare a batch: outputs of the network and of the file."""
        pairs = zip(expected.detections(self.size), actual.detections(self.size), strict=True)
        for i, (reference, exported) in enumerate(pairs):
            matches = self._matches(reference, exported)
            self.count += max(matches.shape)
            self.matched += int(min(matches.any(1).sum(), matches.any(0).sum()))
            missing = _select(reference, ~matches.any(1))
            extra = _select(exported, ~matches.any(0))
            self.unexplained += int((~_suppressed(missing, exported)).sum())
            if len(extra.scores):
                candidates = self._are_candidates(extra, expected, i)
                self.unexplained += int((~(candidates & _suppressed(extra, reference))).sum())

    def _matches(self, reference: Detections, exported: Detections) -> Tensor:
        """(D, D) bool."""
        corners = (reference.boxes[:, None] - exported.boxes).abs().amax(-1)
        scores = (reference.scores[:, None] - exported.scores).abs()
        matches = (reference.labels[:, None] == exported.labels) & (corners <= self.tolerance)
        matches &= scores <= _SCORE_TOLERANCE * reference.scores[:, None]
        if matches.any():
            self.corner_error = max(self.corner_error, _largest_error(corners, matches))
            self.score_error = max(self.score_error, _largest_error(scores, matches))
        return matches

    def _are_candidates(self, boxes: Detections, outputs: DetectorOutput, image: int) -> Tensor:
        """(D,) bool: whether boxes are among the network's candidates before suppression."""
        if not isinstance(outputs, DecodableOutput):
            return torch.zeros_like(boxes.labels, dtype=torch.bool)
        corners, scores = (part[image] for part in outputs.decoded(self.size))
        near = (boxes.boxes[:, None] - corners).abs().amax(-1) <= self.tolerance  # (D, N)
        errors = (boxes.scores[:, None] - scores[:, boxes.labels].T).abs()
        return (near & (errors <= _SCORE_TOLERANCE * boxes.scores[:, None])).any(1)

    @property
    def holds(self) -> bool:
        """Whether both are the same detector up to rounding."""
        return not self.unexplained

    @property
    def summary(self) -> str:
        """How many boxes match, and by how much they differ."""
        share, exceptions = "all", ""
        if self.matched < self.count:
            share = f"{self.matched:,} of"
            exceptions = ", the others where rounding decides between two"
        if self.unexplained:
            exceptions = f", {self.unexplained:,} differ by more than rounding"
        return (
            f"{share} {self.count:,} boxes are the same{exceptions}, corners to "
            f"{self.corner_error:.1e} pixels ({self.tolerance:.1e} allowed), scores to "
            f"{self.score_error:.1e}"
        )


def _select(detections: Detections, mask: Tensor) -> Detections:
    return Detections(*(part[mask] for part in detections))


def _suppressed(boxes: Detections, kept: Detections) -> Tensor:
    """(D,) bool: whether the kept boxes, up to rounding, are a reason to drop a box."""
    lowest = boxes.scores * (1 - _SCORE_TOLERANCE)
    if len(kept.scores) == MAX_DETECTIONS and len(boxes.scores):
        beyond_limit = lowest <= kept.scores[-1]
    else:
        beyond_limit = torch.zeros_like(lowest, dtype=torch.bool)
    overlaps = box_iou(boxes.boxes, kept.boxes) > IOU_THRESHOLD - _IOU_TOLERANCE
    overlaps &= (boxes.labels[:, None] == kept.labels) & (lowest[:, None] <= kept.scores)
    return beyond_limit | overlaps.any(1) | (lowest <= MIN_SCORE)


def _largest_error(errors: Tensor, matches: Tensor) -> float:
    """The largest error of a box to the nearest of its matches."""
    return float(torch.where(matches, errors, torch.inf).amin(1)[matches.any(1)].max())
