"""ReliabilityTable tables against numpy and torchmetrics."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torchmetrics.functional.classification import multiclass_calibration_error

from selfdistill.functional.calibration import BINS, expected_calibration_error
from selfdistill.tasks.reliability import ReliabilityTable


def samples(count=500, classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=generator)
    return logits, torch.randint(classes, (count,), generator=generator)


def table(logits, labels, size=64):
    metric = ReliabilityTable()
    for part in zip(logits.split(size), labels.split(size), strict=True):
        metric.update(*part)
    return metric.compute()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 7])
def test_error_equals_torchmetrics(classes, seed):
    logits, labels = samples(classes=classes, seed=seed)
    want = multiclass_calibration_error(logits, labels, classes, n_bins=BINS, norm="l1")
    assert expected_calibration_error(table(logits, labels)) == pytest.approx(want.item(), rel=1e-5)


def test_table_equals_numpy():
    logits, labels = samples()
    shares = softmax(logits.numpy(), 1)
    sure, right = shares.max(1), shares.argmax(1) == labels.numpy()
    result = table(logits, labels).numpy()
    for bin_index, (images, confidence, accuracy) in enumerate(result):
        inside = (sure > bin_index / BINS) & (sure <= (bin_index + 1) / BINS)
        assert images == inside.sum()
        if inside.any():
            assert confidence == pytest.approx(sure[inside].mean(), rel=1e-5)
            assert accuracy == pytest.approx(right[inside].mean(), rel=1e-5)
        else:
            assert np.isnan([confidence, accuracy]).all()


def test_batches_change_nothing():
    logits, labels = samples()
    one, many = table(logits, labels, 500), table(logits, labels, 7)
    torch.testing.assert_close(one, many, equal_nan=True)


def test_one_who_is_quite_sure_is_in_the_last_bin():
    result = table(torch.tensor([[1000.0, 0, 0], [0, 1000.0, 0]]), torch.tensor([0, 0]))
    assert result[-1].tolist() == [2, 1, 0.5]
    assert result[:-1, 0].sum() == 0


def test_half_precision_is_evaluated_in_full():
    logits, labels = samples()
    result = table(logits.bfloat16(), labels)
    want = table(logits.bfloat16().float(), labels)
    torch.testing.assert_close(result, want, equal_nan=True)
