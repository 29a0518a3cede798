"""Hints: the regressor's forms, the term against numpy, and a copy that needs no regressor."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from offline_pairs import STAGES, features, offline, reached, teacher_net
from torch import nn

from selfdistill.core import ConfigError
from selfdistill.methods.fitnets import build_regressor, mean_squared_error


@pytest.mark.parametrize(
    ("source", "target", "kind", "kernel", "stride"),
    [
        ((6, 8, 8), (9, 8, 8), nn.Conv2d, (1, 1), (1, 1)),
        ((6, 16, 16), (9, 8, 8), nn.Conv2d, (3, 3), (2, 2)),
        ((6, 8, 4), (9, 16, 8), nn.ConvTranspose2d, (4, 4), (2, 2)),
        ((6, 8, 7), (9, 5, 7), nn.Conv2d, (4, 1), (1, 1)),
        ((6, 2, 2), (9, 2, 1), nn.Conv2d, (1, 2), (1, 1)),
    ],
)
def test_regressor_brings_the_source_to_the_target(source, target, kind, kernel, stride):
    layers = build_regressor(source, target, relu=True)
    assert type(layers[0]) is kind
    assert (layers[0].kernel_size, layers[0].stride, layers[0].bias) == (kernel, stride, None)
    assert layers(torch.randn(2, *source)).shape == (2, *target)
    assert layers(torch.randn(2, *source)).min() == 0
    assert build_regressor(source, target, relu=False)(torch.randn(2, *source)).min() < 0


@pytest.mark.parametrize(("source", "target"), [((6, 4, 4), (9, 7, 7)), ((6, 17, 1), (9, 4, 4))])
def test_what_no_convolution_fits_meets_at_the_smaller_size(source, target):
    layers = build_regressor(source, target, relu=True)
    assert layers[0].kernel_size == (1, 1)
    assert mean_squared_error(layers(torch.randn(2, *source)), torch.randn(2, *target)).dim() == 0


@pytest.mark.parametrize(("tap", "stage"), [(1, 0), (2, 1), (4, 3)])
def test_term_equals_numpy(tap, stage, tiny_net, tiny_task, batch, progress):
    method = offline("fitnets", tiny_net, tiny_task, tap=tap, hint_weight=3.0)
    loss = method(batch, progress).losses["hint"].item()
    student_features, teacher_features = features(method, batch.inputs)
    convolution, norm, _ = method.regressor
    weight = convolution.weight.detach().double().numpy()[:, :, 0, 0]
    guess = np.einsum("dc,bchw->bdhw", weight, student_features[stage])
    guess = np.maximum(guess / np.sqrt(1 + norm.eps), 0)  # in evaluation mode, untrained
    assert loss == pytest.approx(3 * np.mean((guess - teacher_features[stage]) ** 2), rel=1e-4)


def test_a_copy_is_its_own_hint(tiny_net, tiny_task, batch, progress):
    method = offline("fitnets", tiny_net, tiny_task, copy.deepcopy(tiny_net))
    method.regressor = nn.Identity()
    assert method(batch, progress).losses["hint"].item() == 0


def test_hint_trains_the_regressor_and_what_lies_before_the_tap(
    tiny_net, tiny_task, batch, progress
):
    method = offline("fitnets", tiny_net, tiny_task).train()
    losses = method(batch, progress).losses
    assert reached(losses["hint"], tiny_net) == {"stage1", "stage2"}
    assert reached(losses["hint"], method.regressor) == {"0", "1"}
    assert reached(losses["task"], tiny_net) == {*STAGES, "fc"}
    given = {id(p) for group in method.param_groups() for p in group["params"]}
    assert {id(p) for p in method.regressor.parameters()} <= given


def test_networks_may_have_different_numbers_of_taps(tiny_net, tiny_task):
    method = offline("fitnets", tiny_net, tiny_task, taps=STAGES[1:], tap=3)
    assert (method.student_tap, method.teacher_tap) == ("stage4", "stage3")


@pytest.mark.parametrize("tap", [0, 5, -1])
def test_a_tap_that_is_not_there(tap, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=r"give 1 … 4"):
        offline("fitnets", tiny_net, tiny_task, tap=tap)


def test_without_weight_it_is_plain_training(tiny_net, tiny_task, batch, progress):
    method = offline("fitnets", tiny_net, tiny_task, teacher_net(), hint_weight=0.0)
    step = method(batch, progress)
    assert step.losses.keys() == {"task"}
    assert method.regressor is None
    assert step.total.item() == pytest.approx(F.cross_entropy(step.outputs, batch.targets).item())


def without_relu(network: nn.Module) -> nn.Module:
    """The network whose second stage ends in a batch norm, as a pre-activation one's does."""
    network.stage2 = network.stage2[:2]
    return network


def test_negative_features_of_the_teacher_are_reported(tiny_net, tiny_task, batch, progress):
    teacher = without_relu(teacher_net())
    method = offline("fitnets", tiny_net, tiny_task, teacher)
    monitors = method(batch, progress).monitors
    target = features(method, batch.inputs)[1][1].astype(float)
    share = (np.minimum(target, 0) ** 2).sum() / (target**2).sum()
    assert 0.2 < share < 0.8
    assert monitors["unreachable"].item() == pytest.approx(share, rel=1e-4)
    (warning,) = method.diagnose({k: v.item() for k, v in monitors.items()}).values()
    assert "stage2" in warning
    assert "regressor_relu=false" in warning
    mended = offline("fitnets", tiny_net, tiny_task, teacher, regressor_relu=False)
    assert mended.diagnose(mended(batch, progress).monitors) == {}


def test_a_teacher_behind_a_relu_is_not_reported(tiny_net, tiny_task, batch, progress):
    method = offline("fitnets", tiny_net, tiny_task)
    monitors = method(batch, progress).monitors
    assert monitors["unreachable"] == 0
    assert method.diagnose(monitors) == {}
