"""Attention transfer against numpy, and which stages its terms train."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from offline_pairs import STAGES, features, offline, reached, teacher_net

from selfdistill.core import ConfigError


def unit(x: np.ndarray) -> np.ndarray:
    energy = (x**2).mean(1).reshape(len(x), -1)
    return energy / np.linalg.norm(energy, axis=1, keepdims=True)


def test_terms_equal_numpy(tiny_net, tiny_task, batch, progress):
    method = offline("at", tiny_net, tiny_task, attention_weight=200.0)
    losses = method(batch, progress).losses
    for i, (x, target) in enumerate(zip(*features(method, batch.inputs), strict=True), 1):
        want = 200 * ((unit(x) - unit(target)) ** 2).mean()
        assert losses[f"attention/{i}"].item() == pytest.approx(want, rel=1e-4)
    assert losses.keys() == {"task", *(f"attention/{i}" for i in range(1, 5))}


def test_larger_feature_is_pooled_before_it_is_squared(tiny_net, tiny_task, batch, progress):
    teacher = teacher_net(strides=(1, 1, 2, 2))  # 16, 16, 8 and 4 wide; the student 16, 8, 4, 2
    method = offline("at", tiny_net, tiny_task, teacher)
    losses = method(batch, progress).losses
    student_features, teacher_features = features(method, batch.inputs)
    for i in (2, 3, 4):
        b, c, h, w = teacher_features[i - 1].shape
        halves = teacher_features[i - 1].reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5))
        want = 1000 * ((unit(student_features[i - 1]) - unit(halves)) ** 2).mean()
        assert losses[f"attention/{i}"].item() == pytest.approx(want, rel=1e-4)


def test_equal_networks_look_at_the_same(tiny_net, tiny_task, batch, progress):
    losses = offline("at", tiny_net, tiny_task, copy.deepcopy(tiny_net))(batch, progress).losses
    assert all(value.item() == 0 for name, value in losses.items() if name != "task")


def test_a_stage_learns_from_its_own_term_and_deeper_ones(tiny_net, tiny_task, batch, progress):
    method = offline("at", tiny_net, tiny_task)
    losses = method(batch, progress).losses
    for i in range(1, 5):
        assert reached(losses[f"attention/{i}"], tiny_net) == set(STAGES[:i])
    losses["attention/4"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def test_soft_loss_is_added(tiny_net, tiny_task, batch, progress):
    method = offline("at", tiny_net, tiny_task, soft_weight=0.5, temperature=2.0)
    step = method(batch, progress)
    reference = method.teacher(batch.inputs)
    want = F.kl_div(
        (step.outputs / 2).log_softmax(1), (reference / 2).softmax(1), reduction="batchmean"
    )
    torch.testing.assert_close(step.losses["soft"], 0.5 * 4 * want)


def test_without_weight_it_is_plain_training(tiny_net, tiny_task, batch, progress):
    step = offline("at", tiny_net, tiny_task, attention_weight=0.0)(batch, progress)
    assert step.losses.keys() == {"task"}
    torch.testing.assert_close(step.total, F.cross_entropy(step.outputs, batch.targets))


def test_unequal_numbers_of_taps(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="student has 3 taps and teacher 4"):
        offline("at", tiny_net, tiny_task, taps=STAGES[1:])


def test_single_cells_have_nothing_to_look_at(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="single cell"):
        offline("at", tiny_net, tiny_task, taps=["pool"], teacher_taps=["stage4"])
