"""Variational information distillation against numpy, and that its variances are trained."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from offline_pairs import STAGES, features, offline, reached, teacher_net

from selfdistill.core import ConfigError


def predicted(bound, x: np.ndarray) -> np.ndarray:
    """Three matrix products over the channels with ReLU between them."""
    weights = [p.detach().double().numpy()[:, :, 0, 0] for p in bound.mean.parameters()]
    for i, weight in enumerate(weights):
        x = np.einsum("dc,bchw->bdhw", weight, np.maximum(x, 0) if i else x)
    return x


def test_terms_equal_numpy(tiny_net, tiny_task, batch, progress):
    method = offline("vid", tiny_net, tiny_task, variational_weight=2.0)
    losses = method(batch, progress).losses
    pairs = zip(method.bounds, *features(method, batch.inputs), strict=True)
    for i, (bound, x, target) in enumerate(pairs, 1):
        want = np.mean((target - predicted(bound, x)) ** 2 / 10 + np.log(5) / 2)
        assert losses[f"variational/{i}"].item() == pytest.approx(want, rel=1e-4)
    assert losses.keys() == {"task", *(f"variational/{i}" for i in range(1, 5))}


def test_larger_feature_is_pooled(tiny_net, tiny_task, batch, progress):
    method = offline("vid", tiny_net, tiny_task, teacher_net(strides=(1, 1, 2, 2)))
    losses = method(batch, progress).losses
    student_features, teacher_features = features(method, batch.inputs)
    b, c, h, w = teacher_features[3].shape
    halves = teacher_features[3].reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5))
    want = np.mean(
        (halves - predicted(method.bounds[3], student_features[3])) ** 2 / 10 + np.log(5) / 2
    )
    assert losses["variational/4"].item() == pytest.approx(want, rel=1e-4)


def test_variances_are_trained(tiny_net, tiny_task, batch, progress):
    method = offline("vid", tiny_net, tiny_task).train()
    before = [bound.raw_variance.detach().clone() for bound in method.bounds]
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        method(batch, progress).total.backward()
        optimizer.step()
    for bound, was in zip(method.bounds, before, strict=True):
        assert (bound.raw_variance < was).all()  # 5 is far above the errors of normed features


def test_a_stage_learns_from_its_own_term_and_deeper_ones(tiny_net, tiny_task, batch, progress):
    method = offline("vid", tiny_net, tiny_task)
    losses = method(batch, progress).losses
    for i in range(1, 5):
        assert reached(losses[f"variational/{i}"], tiny_net) == set(STAGES[:i])
        assert reached(losses[f"variational/{i}"], method.bounds) == {str(i - 1)}


def test_without_weight_it_is_plain_training(tiny_net, tiny_task, batch, progress):
    method = offline("vid", tiny_net, tiny_task, variational_weight=0.0)
    step = method(batch, progress)
    assert step.losses.keys() == {"task"}
    assert not list(method.bounds.parameters())
    assert step.total.item() == pytest.approx(F.cross_entropy(step.outputs, batch.targets).item())


def test_unequal_numbers_of_taps(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="student has 4 taps and teacher 3"):
        offline("vid", tiny_net, tiny_task, teacher_taps=STAGES[1:])
