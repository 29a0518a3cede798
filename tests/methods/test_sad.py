"""SAD against scipy, where its gradients stop, and how small it can get."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.special import softmax

from selfdistill.core import METHODS, ConfigError, Progress, options
from selfdistill.methods.sad import attention_distance
from selfdistill.taps import Taps

PAIRS = (1, 2, 3)


def sad(tiny_net, tiny_task, names="auto", **keywords):
    student = Taps(tiny_net, names, example=tiny_task.example)
    return METHODS["sad"](student, tiny_task, **keywords)


def at(step: int, total: int = 60) -> Progress:
    return Progress(*(torch.tensor(n) for n in (0, 0, step, total)))


def enlarged(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, pixels as areas, the border repeated: scipy's way."""
    places = [(np.arange(n) + 0.5) * x.shape[i] / n - 0.5 for i, n in enumerate(size)]
    return map_coordinates(x, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")


def gap(energy: np.ndarray, deeper: np.ndarray) -> float:
    """Of two energies (B, H, W) and (B, h, w)."""
    size = energy.shape[1:]
    deeper = np.stack([enlarged(image, size) for image in deeper])
    first, second = (softmax(x.reshape(len(x), -1), 1) for x in (energy, deeper))
    return ((first - second) ** 2).mean()


@pytest.mark.parametrize("energy", ["mean", "sum"])
def test_terms_equal_scipy(energy, tiny_net, tiny_task, batch, progress):
    method = sad(tiny_net, tiny_task, channel_reduction=energy, attention_weight=10.0).eval()
    step = method(batch, progress)
    with torch.no_grad():
        _, features = method.student.forward_features(batch.inputs)
    squares = [f.double().numpy() ** 2 for f in features.values()]
    energies = [getattr(s, energy)(1) for s in squares]
    for i in PAIRS:
        want = gap(energies[i - 1], energies[i])
        assert step.monitors[f"attention/{i}"].item() == pytest.approx(want, rel=1e-4)
        assert step.losses[f"attention/{i}"].item() == pytest.approx(10 * want, rel=1e-4)


def test_equal_attention_costs_nothing():
    torch.manual_seed(0)
    energy = torch.rand(2, 1, 4, 4)
    assert attention_distance(energy, energy.clone()) == 0
    assert attention_distance(energy, energy + 3.0) < 1e-12  # a softmax is blind to a shift
    flat = attention_distance(torch.full((2, 1, 8, 8), 5.0), torch.ones(2, 1, 4, 4))
    assert flat < 1e-15


def test_stages_of_equal_size_are_not_enlarged():
    torch.manual_seed(0)
    energy, deeper = torch.rand(2, 2, 1, 4, 4)
    want = (energy.flatten(1).softmax(1) - deeper.flatten(1).softmax(1)).square().mean()
    torch.testing.assert_close(attention_distance(energy, deeper), want)


def test_sizes_that_do_not_divide(tiny_task):
    distance = attention_distance(torch.rand(2, 1, 7, 5), torch.rand(2, 1, 3, 4))
    assert torch.isfinite(distance)


def gradient(loss, *tensors):
    grads = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
    return [g is not None and g.abs().sum().item() > 0 for g in grads]


@pytest.mark.parametrize("i", PAIRS)
def test_the_deeper_stage_is_no_pupil(i, tiny_net, tiny_task, batch, progress):
    loss = sad(tiny_net, tiny_task)(batch, progress).losses[f"attention/{i}"]
    stages = [tiny_net.get_submodule(f"stage{n}")[0].weight for n in (1, 2, 3, 4)]
    assert gradient(loss, *stages, tiny_net.fc.weight) == [n <= i for n in (1, 2, 3, 4)] + [False]


def test_gradient_pulls_towards_the_deeper_map():
    torch.manual_seed(0)
    energy, deeper = torch.randn(2, 1, 4, 4, requires_grad=True), torch.randn(2, 1, 2, 2)
    before = attention_distance(energy, deeper)
    step = torch.autograd.grad(before, energy)[0]
    assert attention_distance(energy - 10 * step, deeper) < before


def test_the_published_weight_is_next_to_nothing_on_large_maps():
    torch.manual_seed(0)
    energy = torch.rand(2, 8, 32, 32).square().mean(1, keepdim=True)
    deeper = torch.rand(2, 8, 16, 16).square().mean(1, keepdim=True)
    assert 1e-10 < attention_distance(energy, deeper) < 1e-7


def test_a_term_that_is_too_small_or_too_large_is_reported(tiny_net, tiny_task):
    monitors = {"attention/1": 2e-8, "attention/2": 3e-5, "attention/3": 0.0}
    lanes = sad(tiny_net, tiny_task, attention_weight=0.1).diagnose(monitors)
    assert lanes == {"attention/1": "silent, 2e-09 of the loss; raise attention_weight"}
    usual = sad(tiny_net, tiny_task).diagnose({**monitors, "attention/3": 4e-3})
    assert list(usual) == ["attention/3"]
    assert "lower attention_weight" in usual["attention/3"]
    half = sad(tiny_net, tiny_task).diagnose({"attention/1": 5e-4})
    assert half == {"attention/1": "loud, 0.5 of the loss; lower attention_weight"}


def test_the_term_joins_late(tiny_net, tiny_task, batch):
    method = sad(tiny_net, tiny_task, start_fraction=2 / 3)
    early, late = (method(batch, at(step)) for step in (39, 40))
    assert early.losses.keys() == late.losses.keys()
    for i in PAIRS:
        assert early.losses[f"attention/{i}"] == 0
        assert late.losses[f"attention/{i}"] > 0
        assert early.monitors[f"attention/{i}"] > 0


def test_weight_zero_is_plain_cross_entropy(tiny_net, tiny_task, batch, progress):
    step = sad(tiny_net, tiny_task, attention_weight=0.0)(batch, progress)
    want = torch.nn.functional.cross_entropy(step.outputs, batch.targets)
    assert torch.equal(step.total, want)


def test_wrong_options_in_a_sentence(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="has 1 tap; give two or more"):
        sad(tiny_net, tiny_task, ["stage2"])
    for start in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="is no fraction of a run"):
            sad(tiny_net, tiny_task, start_fraction=start)


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["sad"]).values()}
    assert defaults == {
        "attention_weight": 1000.0,
        "channel_reduction": "mean",
        "start_fraction": 0.0,
    }
