"""Pixels against numpy; what is ignored counts nowhere."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfdistill.core import IGNORE, ConfigError, DataError
from selfdistill.functional.places import resize_scores
from selfdistill.tasks import Segmentation, check_network
from selfdistill.tasks.colors import colors

K = 4


@pytest.fixture
def task():
    return Segmentation("abcd", torch.zeros(2, 3, 8, 8))


@pytest.fixture
def outputs_and_targets():
    """Scores at half the resolution, and targets of which a part is ignored and class 3 absent."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, K, 4, 4, generator=generator)
    targets = torch.randint(0, 3, (2, 8, 8), generator=generator)
    targets[0, :3] = IGNORE
    return scores, targets


def taken(scores, targets):
    return resize_scores(scores, targets.shape[-2:]).argmax(1).numpy(), targets.numpy()


def test_intersection_over_union_of_numpy(task, outputs_and_targets):
    predicted, true = taken(*outputs_and_targets)
    counted = true != IGNORE
    shares = []
    for k in range(K):
        predicted_mask, true_mask = (predicted == k) & counted, true == k
        if (predicted_mask | true_mask).any():
            shares.append((predicted_mask & true_mask).sum() / (predicted_mask | true_mask).sum())
    metric = task.metric()
    metric.update(*outputs_and_targets)
    scores = metric.compute()
    assert float(scores["miou"]) == pytest.approx(np.mean(shares))
    assert float(scores["accuracy"]) == pytest.approx((predicted == true)[counted].mean())


def test_a_class_that_occurs_nowhere_does_not_count(task):
    targets = torch.zeros(1, 8, 8, dtype=torch.int64)
    targets[:, 4:] = 1
    right = F.one_hot(targets, K).movedim(3, 1).float()
    metric = task.metric()
    metric.update(right, targets)
    assert float(metric.compute()["miou"]) == 1


def test_confusion_counts_pixels(task, outputs_and_targets):
    predicted, true = taken(*outputs_and_targets)
    metric = task.matrix_metrics()["confusion"]
    metric.update(*outputs_and_targets)
    want = np.zeros((K, K))
    np.add.at(want, (true[true != IGNORE], predicted[true != IGNORE]), 1)
    np.testing.assert_array_equal(metric.compute().numpy(), want)


def test_the_loss_is_the_mean_over_pixels_that_count(task, outputs_and_targets):
    scores, targets = outputs_and_targets
    large = resize_scores(scores, (8, 8)).double().numpy()
    logs = large - np.log(np.exp(large).sum(1, keepdims=True))
    picked = [-logs[b, t, y, x] for (b, y, x), t in np.ndenumerate(targets.numpy()) if t != IGNORE]
    assert task.loss(scores, targets).item() == pytest.approx(np.mean(picked), rel=1e-5)


def test_nothing_to_count_is_no_loss_and_no_nan(task, outputs_and_targets):
    scores = outputs_and_targets[0].requires_grad_()
    loss = task.loss(scores, torch.full((2, 8, 8), IGNORE))
    loss.backward()
    assert loss == 0
    assert not scores.grad.any()


def test_soft_loss_of_like_scores_is_nothing_and_meets_the_larger(task, outputs_and_targets):
    scores, _ = outputs_and_targets
    assert task.soft_loss(scores, scores, 4.0).item() == pytest.approx(0, abs=1e-6)
    assert task.soft_loss(scores, resize_scores(scores, (8, 8)), 4.0).item() == pytest.approx(
        0, abs=1e-6
    )


def test_void_pixels_are_not_distilled(task):
    generator = torch.Generator().manual_seed(1)
    scores, reference = torch.randn(2, 2, K, 8, 8, generator=generator)
    targets = torch.randint(0, K, (2, 8, 8), generator=generator)
    targets[0, 2:5] = IGNORE
    mask = task.valid_mask(targets)
    scores.requires_grad_()
    loss = task.soft_loss(scores, reference, 2.0, mask=mask)
    loss.backward()
    has_gradient = (scores.grad != 0).any(1)
    assert torch.equal(has_gradient, targets != IGNORE)
    student, teacher = (x.detach().double().numpy() / 2 for x in (scores, reference))
    log_p = teacher - np.log(np.exp(teacher).sum(1, keepdims=True))
    log_q = student - np.log(np.exp(student).sum(1, keepdims=True))
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(1)
    expected = 4 * divergence[mask.numpy()].mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_soft_loss_without_a_valid_pixel_is_0(task):
    scores = torch.randn(2, K, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = task.valid_mask(torch.full((2, 8, 8), IGNORE))
    loss = task.soft_loss(scores, torch.ones(2, K, 4, 4), 2.0, mask=mask)
    loss.backward()
    assert loss == 0
    assert not scores.grad.any()


def test_soft_loss_where_all_pixels_are_valid_is_that_without_a_mask(task):
    scores, reference = torch.randn(2, 2, K, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = task.valid_mask(torch.zeros(2, 8, 8, dtype=torch.int64))
    masked = task.soft_loss(scores, reference, 2.0, mask=mask)
    torch.testing.assert_close(masked, task.soft_loss(scores, reference, 2.0))


def test_a_coarse_reference_is_weighted_by_the_valid_pixels_of_its_cells(task):
    scores, reference = torch.randn(2, 1, K, 2, 1, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(1, 8, 4, dtype=torch.int64)
    targets[0, 4:, :3] = IGNORE  # a quarter of the second cell is valid
    masked = task.soft_loss(scores, reference, 1.0, mask=task.valid_mask(targets))
    first, second = (
        task.soft_loss(scores[:, :, i : i + 1], reference[:, :, i : i + 1], 1.0) for i in (0, 1)
    )
    torch.testing.assert_close(masked, (first + second / 4) / 1.25)


def test_a_head_keeps_the_resolution(task):
    assert task.head(32)(torch.zeros(2, 32, 5, 7)).shape == (2, K, 5, 7)


def test_a_network_that_says_one_class_an_image_is_refused(task):
    check_network(nn.Conv2d(3, K, 1), task)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, K))
    with pytest.raises(ConfigError, match="asks for"):
        check_network(network, task)
    with pytest.raises(ConfigError, match=r"5 classes|asks for"):
        check_network(nn.Conv2d(3, 5, 1), task)


def test_one_class_is_none():
    with pytest.raises(DataError, match="two classes"):
        Segmentation("a", torch.zeros(2, 3, 8, 8))


def test_each_class_of_numpy_and_their_mean(task, outputs_and_targets):
    predicted, true = taken(*outputs_and_targets)
    counted = true != IGNORE
    metric = task.per_class_metric()
    metric.update(*outputs_and_targets)
    columns = {name: column.numpy() for name, column in metric.compute().items()}
    for k in range(K):
        predicted_mask, true_mask = (predicted == k) & counted, true == k
        both = (predicted_mask & true_mask).sum()
        assert columns["pixels"][k] == true_mask.sum()
        assert columns["iou"][k] == pytest.approx(both / (predicted_mask | true_mask).sum())
        share = both / true_mask.sum() if true_mask.any() else np.nan
        assert columns["accuracy"][k] == pytest.approx(share, nan_ok=True)
    assert np.isnan(columns["accuracy"][3])
    overall = task.metric()
    overall.update(*outputs_and_targets)
    assert np.nanmean(columns["iou"]) == pytest.approx(float(overall.compute()["miou"]))


def test_a_picture_is_the_truth_beside_the_answer(task):
    images = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    truth = torch.randint(0, K, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    right = F.one_hot(truth, K).movedim(3, 1).float()
    truth[0, :2] = IGNORE
    (drawn,) = task.visualize(images, truth, right)
    left, answer = drawn[..., :8], drawn[..., -8:]
    assert drawn.dtype == torch.uint8
    assert drawn.shape[0] == 3
    assert drawn.shape[1] == 8
    assert (left[:, :2] == 100).all()
    assert (left[:, 2:] == answer[:, 2:]).all()
    color = np.array(colors(K))[truth[0, 2:].numpy()]  # (6, 8, 3)
    want = 0.4 * 100 + 0.6 * color
    assert np.abs(left[:, 2:].permute(1, 2, 0).numpy() - want).max() <= 1


def test_answers_of_another_resolution_are_drawn(task, outputs_and_targets):
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    assert len(task.visualize(images, outputs_and_targets[1], outputs_and_targets[0])) == 2
