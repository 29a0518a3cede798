"""NFD against numpy, and what its features' magnitude does not change."""

import numpy as np
import pytest
import torch
from offline_pairs import STAGES, offline, reached, teacher_net
from scene_pairs import scene_batch, scene_method, scene_net

from selfdistill.core import METHODS, ConfigError, Provenance, options
from selfdistill.methods.nfd import normalized
from selfdistill.taps import Taps

AXES = {"space": (2, 3), "batch": (0, 2, 3), "sample": (1, 2, 3), "channel": (1,)}
TEACHER = (8, 10, 12, 16)


def standard(x: np.ndarray, over: str) -> np.ndarray:
    mean, std = (f(axis=AXES[over], keepdims=True) for f in (x.mean, x.std))
    return (x - mean) / (std + 1e-5)


def nfd(student_seed=0, teacher=None, **chosen):
    """On scenes; the teacher is wider than the student."""
    teacher = teacher or scene_net(TEACHER, seed=7)
    return scene_method("nfd", scene_net(seed=student_seed), teacher, **chosen)


@pytest.mark.parametrize("over", AXES)
def test_normalized_equals_numpy(over):
    torch.manual_seed(0)
    x = 3 * torch.randn(4, 5, 6, 7) + 2
    want = standard(x.double().numpy(), over)
    np.testing.assert_allclose(normalized(x, AXES[over]).numpy(), want, atol=1e-4)


@pytest.mark.parametrize("over", AXES)
@pytest.mark.parametrize("tap", [1, 3])
def test_term_equals_numpy(over, tap, progress):
    method, batch = nfd(normalize_over=over, tap=tap, feature_weight=2.0).eval(), scene_batch()
    with torch.no_grad():
        x, t = (n.forward_features(batch.inputs)[1] for n in (method.student, method.teacher))
        x, t = list(x.values())[-tap], list(t.values())[-tap]
        x = method.projection(x).double().numpy()
    want = 2 * ((standard(x, over) - standard(t.double().numpy(), over)) ** 2).mean()
    assert method(batch, progress).losses["feature"].item() == pytest.approx(want, rel=1e-3)


def test_over_space_it_is_twice_one_minus_the_correlation(progress):
    method, batch = nfd().eval(), scene_batch()
    with torch.no_grad():
        _, features = method.student.forward_features(batch.inputs)
        x = method.projection(features["stage4"]).flatten(2).double().numpy()
        t = method.teacher.forward_features(batch.inputs)[1]["stage4"].flatten(2).double().numpy()
    pairs = zip(x.reshape(-1, 16), t.reshape(-1, 16), strict=True)
    lively = [(x, t) for x, t in pairs if t.std() > 1e-3]  # behind a ReLU some channels are silent
    want = [2 - 2 * np.corrcoef(x, t)[0, 1] for x, t in lively]
    silent = [1.0] * (x.shape[0] * x.shape[1] - len(lively))
    loss = method(batch, progress).losses["feature"].item()
    assert loss == pytest.approx(np.mean(want + silent), rel=2e-2)
    assert 0 <= loss <= 4


@pytest.mark.parametrize("over", AXES)
def test_blind_to_scale_and_shift_of_the_teachers_feature(over, progress):
    method, batch = nfd(normalize_over=over).eval(), scene_batch()
    before = method(batch, progress).losses["feature"]
    method.teacher.network.network.stage4.register_forward_hook(lambda m, args, x: 7 * x + 3)
    # the hook of the tap came first: put it behind ours
    hooks = method.teacher.network.network.stage4._forward_hooks
    hooks.move_to_end(next(iter(hooks)))
    torch.testing.assert_close(
        method(batch, progress).losses["feature"], before, rtol=1e-2, atol=1e-3
    )


def test_equal_features_cost_nothing(progress):
    network = scene_net()
    method = scene_method("nfd", network, scene_net()).eval()
    assert isinstance(method.projection, torch.nn.Identity)
    assert method(scene_batch(), progress).losses["feature"].item() == pytest.approx(0, abs=1e-9)


def test_a_constant_channel_has_a_gradient_that_is_a_number():
    x = torch.ones(2, 3, 4, 4, requires_grad=True)
    normalized(x, AXES["space"]).square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_the_projection_has_a_bias_where_it_counts():
    for over in AXES:
        assert (nfd(normalize_over=over).projection.bias is not None) == (
            over in ("sample", "channel")
        )


def test_trains_the_stages_up_to_the_tap_and_the_projection(progress):
    method, batch = nfd(tap=2), scene_batch()
    loss = method(batch, progress).losses["feature"]
    assert reached(loss, method.student.network) == {"stage1", "stage2", "stage3"}
    assert torch.autograd.grad(loss, method.projection.weight)[0].abs().sum() > 0


def test_maps_of_two_sizes_meet_at_the_smaller(tiny_net, tiny_task, batch, progress):
    teacher = teacher_net(strides=(1, 2, 1, 1))  # its last map is 8 wide, the student's 2
    method = offline("nfd", tiny_net, tiny_task, teacher)
    losses = method(batch, progress).losses
    assert losses.keys() == {"task", "feature"}
    assert 0 < losses["feature"] <= 4


def test_soft_outputs_if_asked_for(progress):
    batch = scene_batch()
    losses = nfd(soft_weight=2.0)(batch, progress).losses
    assert losses.keys() == {"task", "soft", "feature"}
    assert nfd(feature_weight=0.0)(batch, progress).losses.keys() == {"task"}


def test_a_feature_of_one_cell_or_a_tap_too_many_in_a_sentence(tiny_task):
    with pytest.raises(ConfigError, match=r"counted from the deepest.*give 1 … 4"):
        nfd(tap=5)
    small = torch.zeros(2, 3, 4, 4)
    nets = [scene_net(), teacher_net()]  # 1×1 at the teacher's last tap
    taps = [Taps(n, STAGES, example=small) for n in nets]
    with pytest.raises(ConfigError, match=r"has a single cell.*take an earlier one \(tap=2\)"):
        METHODS["nfd"](*taps, tiny_task, tap=1)
    METHODS["nfd"](*taps, tiny_task, tap=1, normalize_over="batch")
    method = METHODS["nfd"](*taps, tiny_task)  # the deepest that has places
    deeper = STAGES[STAGES.index(method.teacher_tap) + 1]
    assert [taps[1].shapes[name][1:] for name in (method.teacher_tap, deeper)] == [(2, 2), (1, 1)]


def test_defaults_and_evidence():
    defaults = {o.name: o.default for o in options(METHODS["nfd"]).values()}
    assert defaults == {
        "feature_weight": 1.0,
        "normalize_over": "space",
        "tap": None,
        "soft_weight": 0.0,
        "temperature": 4.0,
    }
    assert METHODS["nfd"].provenance is Provenance.ABSTRACT
    assert "reconstruction" in METHODS["nfd"].__doc__
