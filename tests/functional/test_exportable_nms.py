"""Suppression in tensor operations against torchvision's, image by image and class by class."""

import pytest
import torch
from torchvision.ops import nms

from selfdistill.functional.exportable_nms import exportable_nms


def crowd(images: int, boxes: int, classes: int, seed: int = 0):
    """Boxes that overlap often, scores that fall and labels."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(images, boxes, 2, generator=generator) * 60
    side = torch.rand(images, boxes, 2, generator=generator) * 40 + 5
    scores = torch.rand(images, boxes, generator=generator).sort(1, descending=True).values
    labels = torch.randint(classes, (images, boxes), generator=generator)
    return torch.cat([low, low + side], -1), scores, labels


def by_torchvision(boxes, scores, labels, iou_threshold):
    """Indices of the kept boxes of one image, by descending score."""
    kept = [
        (labels == k).nonzero()[:, 0][nms(boxes[labels == k], scores[labels == k], iou_threshold)]
        for k in labels.unique()
    ]
    indices = torch.cat(kept)
    return indices[scores[indices].argsort(descending=True)]


@pytest.mark.parametrize("iou_threshold", [0.2, 0.6])
@pytest.mark.parametrize("max_detections", [5, 300])
def test_equals_torchvision(iou_threshold, max_detections):
    boxes, scores, labels = crowd(4, 200, 3)
    result = exportable_nms(
        boxes, scores, labels, iou_threshold=iou_threshold, max_detections=max_detections
    )
    for i in range(4):
        kept = by_torchvision(boxes[i], scores[i], labels[i], iou_threshold)[:max_detections]
        n = len(kept)
        assert torch.equal(result[0][i, :n], boxes[i, kept])
        assert torch.equal(result[1][i, :n], scores[i, kept])
        assert torch.equal(result[2][i, :n], labels[i, kept])
        assert not any(part[i, n:].any() for part in result)


def test_a_score_of_zero_is_no_box():
    boxes, scores, labels = crowd(2, 20, 1)
    scores[0] = 0
    result = exportable_nms(boxes, scores, labels, iou_threshold=0.5, max_detections=10)
    assert not any(part[0].any() for part in result)
    assert result[1][1, 0] == scores[1, 0]


def test_boxes_without_area_are_dropped_by_none_and_drop_none():
    boxes = torch.tensor([[[3.0, 3, 3, 3], [3, 3, 3, 3], [0, 0, 9, 9]]])
    scores, labels = torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3, dtype=torch.int64)
    result = exportable_nms(boxes, scores, labels, iou_threshold=0.5, max_detections=3)
    assert torch.equal(result[1], scores)
