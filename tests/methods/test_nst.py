"""Neuron selectivity transfer against explicit outer products in numpy."""

import copy

import numpy as np
import pytest
import torch.nn.functional as F
from offline_pairs import STAGES, features, offline, reached, teacher_net

from selfdistill.core import ConfigError


def mean_outer(x: np.ndarray) -> np.ndarray:
    """(B, C, H, W) -> (B, N, N): the mean outer product of the channels' unit vectors."""
    rows = x.reshape(*x.shape[:2], -1)
    length = np.linalg.norm(rows, axis=2, keepdims=True)
    rows = rows / np.where(length > 0, length, 1)
    return np.einsum("bcn,bcm->bnm", rows, rows) / x.shape[1]


def test_terms_equal_numpy(tiny_net, tiny_task, batch, progress):
    method = offline("nst", tiny_net, tiny_task, mmd_weight=7.0)
    losses = method(batch, progress).losses
    for i, (x, target) in enumerate(zip(*features(method, batch.inputs), strict=True), 1):
        want = 7 * ((mean_outer(x) - mean_outer(target)) ** 2).sum((1, 2)).mean()
        assert losses[f"selectivity/{i}"].item() == pytest.approx(want, rel=1e-4)
    assert losses.keys() == {"task", *(f"selectivity/{i}" for i in range(1, 5))}


def test_larger_feature_is_pooled(tiny_net, tiny_task, batch, progress):
    teacher = teacher_net(strides=(1, 1, 2, 2))
    method = offline("nst", tiny_net, tiny_task, teacher)
    losses = method(batch, progress).losses
    student_features, teacher_features = features(method, batch.inputs)
    b, c, h, w = teacher_features[2].shape
    halves = teacher_features[2].reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5))
    want = 50 * ((mean_outer(student_features[2]) - mean_outer(halves)) ** 2).sum((1, 2)).mean()
    assert losses["selectivity/3"].item() == pytest.approx(want, rel=1e-4)


def test_equal_networks_select_the_same(tiny_net, tiny_task, batch, progress):
    losses = offline("nst", tiny_net, tiny_task, copy.deepcopy(tiny_net))(batch, progress).losses
    assert all(value.item() == 0 for name, value in losses.items() if name != "task")


def test_a_stage_learns_from_its_own_term_and_deeper_ones(tiny_net, tiny_task, batch, progress):
    losses = offline("nst", tiny_net, tiny_task)(batch, progress).losses
    for i in range(1, 5):
        assert reached(losses[f"selectivity/{i}"], tiny_net) == set(STAGES[:i])


def test_nothing_is_trained_but_the_student(tiny_net, tiny_task):
    method = offline("nst", tiny_net, tiny_task)
    ids = {id(p) for p in tiny_net.parameters()}
    assert {id(p) for p in method.parameters() if p.requires_grad} == ids


def test_without_weight_it_is_plain_training(tiny_net, tiny_task, batch, progress):
    step = offline("nst", tiny_net, tiny_task, mmd_weight=0.0)(batch, progress)
    assert step.losses.keys() == {"task"}
    assert step.total.item() == pytest.approx(F.cross_entropy(step.outputs, batch.targets).item())


def test_options_that_cannot_be(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="student has 4 taps and teacher 2"):
        offline("nst", tiny_net, tiny_task, teacher_taps=STAGES[2:])
    with pytest.raises(ConfigError, match="single cell"):
        offline("nst", tiny_net, tiny_task, taps=["stage4"], teacher_taps=["pool"])
