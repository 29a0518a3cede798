"""Similarity-preserving distillation against numpy, and what similarity_matrix are blind to."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_pairs import STAGES, features, offline, reached, teacher_net
from scipy.stats import ortho_group

from selfdistill.core import METHODS, ConfigError
from selfdistill.methods.sp import similarity_matrix


def by_numpy(x: np.ndarray) -> np.ndarray:
    rows = x.reshape(len(x), -1)
    products = rows @ rows.T
    return products / np.linalg.norm(products, axis=1, keepdims=True)


def maps(seed: int) -> torch.Tensor:
    return torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(seed))


def test_last_stage_equals_numpy(tiny_net, tiny_task, batch, progress):
    teacher = teacher_net(strides=(1, 1, 2, 2))  # twice the student's size
    method = offline("sp", tiny_net, tiny_task, teacher)
    losses = method(batch, progress).losses
    student_features, teacher_features = features(method, batch.inputs)
    want = (
        3000 * ((by_numpy(student_features[3]) - by_numpy(teacher_features[3])) ** 2).sum() / 8**2
    )
    assert losses["similarity/4"].item() == pytest.approx(want, rel=1e-3)
    assert losses.keys() == {"task", "similarity/4"}


def test_all_stages_are_compared_in_pairs(tiny_net, tiny_task, batch, progress):
    method = offline("sp", tiny_net, tiny_task, stages="all")
    losses = method(batch, progress).losses
    for i, (x, target) in enumerate(zip(*features(method, batch.inputs), strict=True), 1):
        want = 3000 * ((by_numpy(x) - by_numpy(target)) ** 2).sum() / 8**2
        assert losses[f"similarity/{i}"].item() == pytest.approx(want, rel=1e-3)
        assert reached(losses[f"similarity/{i}"], tiny_net) == set(STAGES[:i])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_blind_to_scale_and_rotation(seed, scale):
    x = maps(seed)
    turn = torch.from_numpy(ortho_group.rvs(36, random_state=seed)).float()
    turned = scale * (x.flatten(1) @ turn).view_as(x)
    torch.testing.assert_close(
        similarity_matrix(turned), similarity_matrix(x), rtol=1e-3, atol=1e-4
    )


def test_a_dead_image_has_a_finite_gradient():
    x = maps(0)
    x[2] = 0
    x.requires_grad_()
    matrix = similarity_matrix(x)
    assert matrix[2].abs().max() == 0
    (matrix - similarity_matrix(maps(1))).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() < 100


def test_equal_networks_agree(tiny_net, tiny_task, batch, progress):
    losses = offline("sp", tiny_net, tiny_task, copy.deepcopy(tiny_net))(batch, progress).losses
    assert losses["similarity/4"].item() == 0


def test_only_pairs_need_equal_numbers_of_taps(tiny_net, tiny_task):
    offline("sp", tiny_net, tiny_task, taps=STAGES[2:])
    with pytest.raises(ConfigError, match="student has 2 taps and teacher 4"):
        offline("sp", tiny_net, tiny_task, taps=STAGES[2:], stages="all")


def test_without_weight_it_is_plain_training(tiny_net, tiny_task, batch, progress):
    step = offline("sp", tiny_net, tiny_task, similarity_weight=0.0)(batch, progress)
    assert step.losses.keys() == {"task"}
    assert step.total.item() == pytest.approx(F.cross_entropy(step.outputs, batch.targets).item())


def test_one_image_is_like_nothing_else():
    assert METHODS["sp"].needs.batch == 2
    assert similarity_matrix(maps(0)[:1]).item() == pytest.approx(1)
