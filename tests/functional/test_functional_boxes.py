"""Overlap, focal terms and suppression against torchvision and torch.distributions."""

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, kl_divergence
from torchvision.ops import complete_box_iou_loss, sigmoid_focal_loss

from selfdistill.functional.boxes import binary_divergence, class_nms, complete_iou, focal_loss


def some_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = 60 * torch.rand(count, 2, generator=generator)
    return torch.cat([low, low + 1 + 40 * torch.rand(count, 2, generator=generator)], 1)


def test_complete_iou_and_its_gradient_are_torchvisions():
    area_a, area_b = some_boxes(200, 0).requires_grad_(), some_boxes(200, 1)
    want = 1 - complete_box_iou_loss(area_a, area_b)
    torch.testing.assert_close(complete_iou(area_a, area_b), want)
    grads = [torch.autograd.grad(x.sum(), area_a)[0] for x in (complete_iou(area_a, area_b), want)]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5)


def test_complete_iou_of_a_box_with_itself_is_one():
    boxes = some_boxes(20, 2)
    torch.testing.assert_close(complete_iou(boxes, boxes), torch.ones(20))


@pytest.mark.parametrize("sides", [(0.0, 10.0), (10.0, 0.0), (0.0, 0.0)])
def test_a_flat_box_has_a_gradient(sides):
    box = torch.tensor([[5.0, 5.0, 5 + sides[0], 5 + sides[1]]], requires_grad=True)
    overlap = complete_iou(box, torch.tensor([[1.0, 2.0, 30.0, 40.0]]))
    overlap.sum().backward()
    assert overlap.isfinite().all()
    assert box.grad.isfinite().all()


def test_torchvision_gives_a_flat_box_no_gradient():  # which is why there is a form of our own
    box = torch.tensor([[5.0, 5.0, 15.0, 5.0]], requires_grad=True)
    complete_box_iou_loss(box, torch.tensor([[1.0, 2.0, 30.0, 40.0]])).sum().backward()
    assert box.grad.isnan().any()


@pytest.mark.parametrize("gamma", [1.5, 2.0])
def test_focal_is_torchvisions_for_hard_targets(gamma):
    scores = torch.linspace(-6, 6, 40)
    for targets in (torch.zeros(40), torch.ones(40)):
        want = sigmoid_focal_loss(scores, targets, alpha=0.25, gamma=gamma)
        torch.testing.assert_close(focal_loss(scores, targets, gamma), want)


def test_focal_without_focus_is_binary_cross_entropy():
    scores, targets = torch.linspace(-6, 6, 40), torch.linspace(0, 1, 40)
    want = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
    torch.testing.assert_close(focal_loss(scores, targets, 0.0), want)


def test_focal_of_what_is_certain_has_a_gradient():
    scores = torch.tensor([-200.0, 200.0, -200.0, 200.0], requires_grad=True)
    focal_loss(scores, torch.tensor([0.0, 0.0, 1.0, 1.0]), 1.5).sum().backward()
    assert scores.grad.isfinite().all()


def test_binary_divergence_is_that_of_bernoulli():
    scores, reference = torch.linspace(-3, 3, 9), torch.linspace(2, -4, 9)
    tau = 2.5
    pair = Bernoulli(logits=reference / tau), Bernoulli(logits=scores / tau)
    want = tau**2 * kl_divergence(*pair)
    torch.testing.assert_close(binary_divergence(scores, reference, tau), want)
    assert not binary_divergence(scores, scores, tau).any()


def kept(boxes, scores, **changes):
    settings = {
        "min_score": 0.1,
        "iou_threshold": 0.5,
        "max_detections": 10,
        "max_candidates": 100,
    } | changes
    return class_nms(torch.tensor(boxes), torch.tensor(scores), **settings)


BOXES = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [50.0, 50.0, 60.0, 60.0]]


def test_of_two_boxes_that_say_the_same_the_surer_one_stays():
    boxes, scores, labels = kept(BOXES, [[0.5, 0.0], [0.9, 0.0], [0.6, 0.0]])
    assert boxes.tolist() == [BOXES[1], BOXES[2]]
    assert scores.tolist() == pytest.approx([0.9, 0.6])
    assert labels.tolist() == [0, 0]


def test_classes_do_not_suppress_each_other():
    boxes, _, labels = kept(BOXES, [[0.5, 0.0], [0.0, 0.9], [0.05, 0.05]])
    assert boxes.tolist() == [BOXES[1], BOXES[0]]
    assert labels.tolist() == [1, 0]


def test_a_box_counts_for_each_class_it_scores_for():
    assert kept(BOXES[:1], [[0.5, 0.9]])[2].tolist() == [1, 0]


def test_no_more_than_asked_for():
    scores = [[0.5, 0.0], [0.0, 0.9], [0.6, 0.0]]
    assert kept(BOXES, scores, max_detections=1)[1].tolist() == pytest.approx([0.9])
    assert kept(BOXES, scores, max_candidates=2)[1].tolist() == pytest.approx([0.9, 0.6])


def test_nothing_sure_is_nothing():
    boxes, scores, labels = kept(BOXES, [[0.05, 0.0]] * 3)
    assert boxes.shape == (0, 4)
    assert scores.shape == labels.shape == (0,)
