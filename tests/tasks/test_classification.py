"""Classification: losses against scipy, the head, the metrics and the sentences."""

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn

from selfdistill.core import ConfigError, DataError
from selfdistill.tasks import Classification, check_network

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0], [-2.0, 0.0, 4.0]])
LABELS = torch.tensor([0, 2, 1, 2])


def task(classes: int = 3, **keywords) -> Classification:
    return Classification([f"c{i}" for i in range(classes)], torch.zeros(2, 3, 8, 8), **keywords)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_equals_scipy(smoothing):
    expected = np.full((4, 3), smoothing / 3)
    expected[np.arange(4), LABELS] += 1 - smoothing
    want = -(expected * special.log_softmax(LOGITS.double().numpy(), 1)).sum(1).mean()
    assert task(label_smoothing=smoothing).loss(LOGITS, LABELS).item() == pytest.approx(want)


def test_loss_of_half_precision_is_fp32():
    loss = task().loss(LOGITS.bfloat16(), LABELS)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, task().loss(LOGITS, LABELS))  # these logits are exact in bf16


def test_soft_loss_is_not_smoothed():
    teacher = LOGITS.flip(0)
    p, q = (special.softmax(z.double().numpy() / 4, 1) for z in (teacher, LOGITS))
    want = 16 * special.rel_entr(p, q).sum(1).mean()
    got = task(label_smoothing=0.3).soft_loss(LOGITS, teacher, 4.0)
    assert got.item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_classes_are_refused(n):
    with pytest.raises(DataError, match=f"two classes or more; there is {n}"):
        task(n)


def test_alike_are_images_of_one_class():
    want = np.equal.outer(LABELS.numpy(), LABELS.numpy())
    assert np.array_equal(task().same_class_mask(LABELS).numpy(), want)


def test_head_is_a_mean_and_a_linear_layer():
    head, x = task().head(5), torch.randn(2, 5, 3, 4)
    linear = head[-1]
    torch.testing.assert_close(head(x), linear(x.mean((2, 3))))
    assert (linear.in_features, linear.out_features) == (5, 3)
    assert sum(p.numel() for p in task(100).head(512).parameters()) == 51_300


def test_metric_counts():
    metric = task().metric()
    metric.update(LOGITS, LABELS)
    assert {k: v.item() for k, v in metric.compute().items()} == {"accuracy": 0.5}
    assert task().primary_metric in metric


def test_metric_has_top5_from_six_classes_on():
    assert set(task(5).metric()) == {"accuracy"}
    metric = task(6).metric()
    assert set(metric) == {"accuracy", "top5"}
    logits = torch.arange(6.0).repeat(2, 1)
    metric.update(logits, torch.tensor([0, 1]))  # the last place and the last but one
    assert metric.compute()["top5"].item() == 0.5


def test_confusion_has_true_classes_in_rows():
    confusion = task().matrix_metrics()["confusion"]
    confusion.update(LOGITS, LABELS)
    want = np.zeros((3, 3))
    np.add.at(want, (LABELS.numpy(), LOGITS.argmax(1).numpy()), 1)
    assert np.array_equal(confusion.compute().numpy(), want)


def test_correct_is_where_the_largest_logit_is():
    assert task().correct_mask(LOGITS, LABELS).tolist() == [True, False, False, True]


def test_check_is_content_with_what_fits():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 3)).train()
    before = network[0].running_mean.clone()
    check_network(network, task())
    assert network.training
    assert torch.equal(network[0].running_mean, before)


@pytest.mark.parametrize(
    ("network", "got"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), r"\(2, 10\)"),
        (nn.Conv2d(3, 3, 1), r"\(2, 3, 8, 8\)"),
    ],
)
def test_check_says_what_to_do(network, got):
    with pytest.raises(
        ConfigError, match=rf"gives {got} .*ask for \(2, 3\).*num_classes=3"
    ) as message:
        check_network(network, task())
    assert "\n" not in str(message.value)
