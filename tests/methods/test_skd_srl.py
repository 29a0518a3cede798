"""SKD-SRL against scipy, its symmetry, where its gradients stop, and collapse."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from selfdistill.core import METHODS, ConfigError, options
from selfdistill.methods.skd_srl import SPREAD, negative_cosine, spread
from selfdistill.models import build
from selfdistill.taps import Taps
from selfdistill.tasks import make_task


def skd_srl(network, task, **keywords):
    torch.manual_seed(3)
    return METHODS["skd-srl"](Taps(network, example=task.example), task, **keywords)


@pytest.fixture
def pairs(batch):
    generator = torch.Generator().manual_seed(2)
    return batch._replace(views=(torch.randn(batch.inputs.shape, generator=generator),))


def swapped(pairs):
    return pairs._replace(inputs=pairs.views[0], views=(pairs.inputs,))


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(((x * y).sum(1) / lengths).mean())


def test_terms_equal_scipy(tiny_net, tiny_task, pairs, progress):
    weights = {"soft_weight": 0.5, "temperature": 2.0, "similarity_weight": 0.7}
    method = skd_srl(tiny_net, tiny_task, **weights).eval()
    losses = method(pairs, progress).losses
    with torch.no_grad():
        passes = [method.student.forward_pooled(v) for v in (pairs.inputs, pairs.views[0])]
        predicted = [method.predictor(vector).double().numpy() for _, _, vector in passes]
    a, b = (out.double().numpy() for out, _, _ in passes)
    r, s = (vector.double().numpy() for _, _, vector in passes)
    hard = [-log_softmax(z, 1)[range(8), pairs.targets].mean() for z in (a, b)]
    assert losses["task"].item() == pytest.approx(sum(hard), rel=1e-5)

    def kl(z, target):
        return (softmax(target, 1) * (log_softmax(target, 1) - log_softmax(z, 1))).sum(1).mean()

    soft = 0.5 * (kl(a / 2, b / 2) + kl(b / 2, a / 2))  # without the square of the temperature
    assert losses["soft"].item() == pytest.approx(soft, rel=1e-4)
    similarity = -0.7 / 2 * (cosine(predicted[0], s) + cosine(predicted[1], r))
    assert losses["similarity"].item() == pytest.approx(similarity, rel=1e-4)


def test_order_of_the_views_does_not_matter(tiny_net, tiny_task, pairs, progress):
    method = skd_srl(tiny_net, tiny_task)
    first, second = (method(b, progress).losses for b in (pairs, swapped(pairs)))
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_the_target_of_the_similarity_gets_no_gradient():
    x, y = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    negative_cosine(x, y.detach()).backward()
    assert x.grad.abs().sum() > 0
    assert y.grad is None


def test_the_gradient_stops_at_the_targets(tiny_net, tiny_task, pairs, progress):
    """With a predictor that hands nothing on, similarity would only reach features as a target."""
    method = skd_srl(tiny_net, tiny_task)
    nn.init.zeros_(method.predictor[-1].weight)
    loss = method(pairs, progress).losses["similarity"]
    weights = [tiny_net.stage4[0].weight, method.predictor[-1].bias]
    stage, bias = torch.autograd.grad(loss, weights)
    assert stage.abs().max() == 0
    assert bias.abs().max() > 0


def test_similarity_trains_features_and_predictor_and_no_classifier(
    tiny_net, tiny_task, pairs, progress
):
    method = skd_srl(tiny_net, tiny_task)
    loss = method(pairs, progress).losses["similarity"]
    weights = [tiny_net.stage1[0].weight, method.predictor[0].weight, tiny_net.fc.weight]
    stage, predictor, classifier = torch.autograd.grad(loss, weights, allow_unused=True)
    assert stage.abs().sum() > 0
    assert predictor.abs().sum() > 0
    assert classifier is None


def test_the_view_that_teaches_is_detached(tiny_net, tiny_task, pairs, progress):
    kept = []
    tiny_net.fc.register_forward_hook(lambda m, a, out: kept.append(out))
    losses = skd_srl(tiny_net, tiny_task, soft_weight=1.0, temperature=3.0)(pairs, progress).losses
    gradient = torch.autograd.grad(losses["soft"], kept[-1])[0]
    a, b = ((z / 3).softmax(1).detach() for z in kept[-1].chunk(2))
    want = torch.cat([a - b, b - a]) / 3 / 8  # of a KL to a fixed target, without τ²
    torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-6)


def test_without_its_terms_it_is_cross_entropy_of_both_views(tiny_net, tiny_task, pairs, progress):
    method = skd_srl(tiny_net, tiny_task, soft_weight=0.0, similarity_weight=0.0)
    assert method.predictor is None
    step = method(pairs, progress)
    out = tiny_net(torch.cat([pairs.inputs, pairs.views[0]]))
    mean = nn.functional.cross_entropy(out, pairs.targets.repeat(2))
    torch.testing.assert_close(step.total, 2 * mean)
    torch.testing.assert_close(step.outputs, out[:8])


def test_spread_of_random_directions_is_one():
    x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
    assert spread(x).item() == pytest.approx(1.0, abs=0.02)


def test_spread_equals_numpy_and_is_blind_to_length():
    x = np.random.default_rng(0).normal(1.0, 1.0, (9, 5)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    want = unit.std(0).mean() * 5**0.5
    assert spread(torch.from_numpy(x)).item() == pytest.approx(want, rel=1e-5)
    assert spread(7 * torch.from_numpy(x)).item() == pytest.approx(want, rel=1e-5)


def test_collapse_is_reported(tiny_net, tiny_task, pairs, progress):
    method = skd_srl(tiny_net, tiny_task)
    healthy = method(pairs, progress).monitors
    assert method.diagnose({name: float(x) for name, x in healthy.items()}) == {}
    with torch.no_grad():  # the last stage says the same of every image
        tiny_net.stage4[1].weight.zero_()
        tiny_net.stage4[1].bias.fill_(1.0)
    collapsed = {name: float(x) for name, x in method(pairs, progress).monitors.items()}
    assert collapsed[SPREAD] == pytest.approx(0.0, abs=1e-6)
    assert list(method.diagnose(collapsed)) == [SPREAD]


def test_clips_are_views_too(progress, pairs):
    task = make_task("clips", "abcde", (3, 4, 16, 16))
    method = skd_srl(build("clips/r3d10_w8", num_classes=5), task)
    clips = torch.randn(2, 8, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    step = method(pairs._replace(inputs=clips[0], views=(clips[1],)), progress)
    assert step.outputs.shape == (8, 5)
    assert step.losses.keys() == {"task", "soft", "similarity"}
    assert torch.isfinite(step.total)


def test_what_is_deployed_is_the_network_alone(tiny_net, tiny_task):
    method = skd_srl(tiny_net, tiny_task)
    assert method.predictors() == {"student": tiny_net}


def test_a_batch_of_one_view_is_told_in_a_sentence(tiny_net, tiny_task, batch, progress):
    with pytest.raises(ConfigError, match=r"fill Batch\.views"):
        skd_srl(tiny_net, tiny_task)(batch, progress)


def test_needs_and_defaults():
    cls = METHODS["skd-srl"]
    assert (cls.needs.views, cls.needs.clips) == (2, True)
    assert str(cls.provenance) == "reconstruction from the abstract"
    defaults = {o.name: o.default for o in options(cls).values()}
    assert defaults == {"soft_weight": 0.1, "temperature": 10.0, "similarity_weight": 1.0}
