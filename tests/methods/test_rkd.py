"""Relational distillation against scipy and loops, and what relations are blind to."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_pairs import STAGES, features, offline, reached, teacher_net
from scipy.spatial.distance import pdist, squareform
from scipy.special import huber
from scipy.stats import ortho_group

from selfdistill.core import METHODS
from selfdistill.methods.rkd import cosines, differences, relative_distances


def points(seed: int, count: int = 5, channels: int = 4) -> torch.Tensor:
    shape = count, channels, 2, 2
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pooled_differences(x: torch.Tensor) -> torch.Tensor:
    return differences(x.mean((2, 3)))


def angles(x: np.ndarray) -> np.ndarray:
    count = len(x)
    cosines = np.zeros((count, count, count))
    for j in range(count):
        for i in range(count):
            for k in range(count):
                if j not in (i, k):
                    a, b = x[i] - x[j], x[k] - x[j]
                    cosines[j, i, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return cosines


def test_terms_equal_scipy(tiny_net, tiny_task, batch, progress):
    method = offline("rkd", tiny_net, tiny_task, teacher_net(strides=(1, 1, 2, 2)))
    losses = method(batch, progress).losses
    student, teacher = (maps[-1].mean((2, 3)) for maps in features(method, batch.inputs))
    apart = [squareform(pdist(x)) / pdist(x).mean() for x in (student, teacher)]
    want = 25 * huber(1, apart[0] - apart[1]).mean()
    assert losses["distance"].item() == pytest.approx(want, rel=1e-3)
    want = 50 * huber(1, angles(student) - angles(teacher)).mean()
    assert losses["angle"].item() == pytest.approx(want, rel=1e-3)
    assert losses.keys() == {"task", "distance", "angle"}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_blind_to_place_scale_and_rotation(seed, scale):
    x = points(seed)
    turn = torch.from_numpy(ortho_group.rvs(4, random_state=seed)).float()
    moved = scale * torch.einsum("bchw,cd->bdhw", x, turn) + scale
    for relation in (relative_distances, cosines):
        first, second = relation(pooled_differences(x)), relation(pooled_differences(moved))
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_an_equilateral_triangle():
    corners = torch.eye(3)[:, :, None, None]
    away = ~torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(relative_distances(pooled_differences(corners)), away.float())
    angle_cosines = cosines(pooled_differences(corners))
    assert angle_cosines[0, 1, 2].item() == pytest.approx(0.5)
    assert angle_cosines[0, 1, 1].item() == pytest.approx(1)
    assert angle_cosines[0, 0, 1].item() == 0


@pytest.mark.parametrize("same", [(0, 1), (0, 1, 2, 3, 4)])
def test_images_that_fall_together_have_a_finite_gradient(same):
    x = points(0)
    x[list(same)] = 1.0
    x.requires_grad_()
    other = pooled_differences(points(1))
    loss = F.smooth_l1_loss(relative_distances(pooled_differences(x)), relative_distances(other))
    (loss + F.smooth_l1_loss(cosines(pooled_differences(x)), cosines(other))).backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()


def test_two_images_have_no_relation_that_could_differ():
    first, second = pooled_differences(points(0, 2)), pooled_differences(points(1, 2))
    torch.testing.assert_close(relative_distances(first), relative_distances(second))
    torch.testing.assert_close(cosines(first), cosines(second))
    assert METHODS["rkd"].needs.batch == 3


def test_angles_are_fp32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        half = cosines(pooled_differences(points(0)))
    torch.testing.assert_close(half, cosines(pooled_differences(points(0))))


def test_equal_networks_agree(tiny_net, tiny_task, batch, progress):
    losses = offline("rkd", tiny_net, tiny_task, copy.deepcopy(tiny_net))(batch, progress).losses
    assert losses["distance"].item() == losses["angle"].item() == 0


def test_the_trunk_learns_and_the_classifier_does_not(tiny_net, tiny_task, batch, progress):
    losses = offline("rkd", tiny_net, tiny_task)(batch, progress).losses
    assert reached(losses["distance"], tiny_net) == set(STAGES)
    assert reached(losses["angle"], tiny_net) == set(STAGES)


def test_without_weights_it_is_plain_training(tiny_net, tiny_task, batch, progress):
    step = offline("rkd", tiny_net, tiny_task, distance_weight=0.0, angle_weight=0.0)(
        batch, progress
    )
    assert step.losses.keys() == {"task"}
    assert step.total.item() == pytest.approx(F.cross_entropy(step.outputs, batch.targets).item())
