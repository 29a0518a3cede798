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


def by_torchvision(boxes, scores, labels, overlap):
    """Places of what is kept in one image, the surest first."""
    kept = [
        (labels == k).nonzero()[:, 0][nms(boxes[labels == k], scores[labels == k], overlap)]
        for k in labels.unique()
    ]
    places = torch.cat(kept)
    return places[scores[places].argsort(descending=True)]


@pytest.mark.parametrize("overlap", [0.2, 0.6])
@pytest.mark.parametrize("count", [5, 300])
def test_equals_torchvision(overlap, count):
    boxes, scores, labels = crowd(4, 200, 3)
    found = exportable_nms(boxes, scores, labels, overlap=overlap, count=count)
    for i in range(4):
        kept = by_torchvision(boxes[i], scores[i], labels[i], overlap)[:count]
        n = len(kept)
        assert torch.equal(found[0][i, :n], boxes[i, kept])
        assert torch.equal(found[1][i, :n], scores[i, kept])
        assert torch.equal(found[2][i, :n], labels[i, kept])
        assert not any(part[i, n:].any() for part in found)


def test_a_score_of_zero_is_no_box():
    boxes, scores, labels = crowd(2, 20, 1)
    scores[0] = 0
    found = exportable_nms(boxes, scores, labels, overlap=0.5, count=10)
    assert not any(part[0].any() for part in found)
    assert found[1][1, 0] == scores[1, 0]


def test_boxes_without_area_are_dropped_by_none_and_drop_none():
    boxes = torch.tensor([[[3.0, 3, 3, 3], [3, 3, 3, 3], [0, 0, 9, 9]]])
    scores, labels = torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3, dtype=torch.int64)
    found = exportable_nms(boxes, scores, labels, overlap=0.5, count=3)
    assert torch.equal(found[1], scores)
