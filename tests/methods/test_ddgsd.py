"""DDGSD against numpy, its symmetry, and where its gradients stop."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from selfdistill.core import METHODS, ConfigError, options
from selfdistill.methods.ddgsd import mean_discrepancy
from selfdistill.taps import Taps


def ddgsd(tiny_net, tiny_task, **keywords):
    student = Taps(tiny_net, example=tiny_task.example)
    return METHODS["ddgsd"](student, tiny_task, **keywords)


@pytest.fixture
def pairs(batch):
    generator = torch.Generator().manual_seed(2)
    return batch._replace(views=(torch.randn(batch.inputs.shape, generator=generator),))


def swapped(pairs):
    return pairs._replace(inputs=pairs.views[0], views=(pairs.inputs,))


def test_mean_discrepancy_equals_numpy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 7)), rng.normal(size=(6, 7))
    want = np.linalg.norm(x.mean(0) - y.mean(0)) ** 2
    value = mean_discrepancy(torch.from_numpy(x), torch.from_numpy(y))
    assert value.item() == pytest.approx(want, rel=1e-5)


def test_mean_discrepancy_is_the_linear_kernels():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    want = (x @ x.T).mean() + (y @ y.T).mean() - 2 * (x @ y.T).mean()
    value = mean_discrepancy(torch.from_numpy(x), torch.from_numpy(y))
    assert value.item() == pytest.approx(want, rel=1e-5)


def test_mean_discrepancy_compares_channel_by_channel():
    x, y = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 3.0]])
    assert mean_discrepancy(x, y) == 8  # their averages over the channels agree


def test_terms_equal_scipy(tiny_net, tiny_task, pairs, progress):
    weights = {"soft_weight": 0.5, "temperature": 2.0, "discrepancy_weight": 0.1}
    method = ddgsd(tiny_net, tiny_task, **weights).eval()
    losses = method(pairs, progress).losses
    views = pairs.inputs, pairs.views[0]
    with torch.no_grad():
        outs, features = zip(*(method.student.forward_features(v) for v in views), strict=True)
    a, b = (out.double().numpy() for out in outs)
    hard = [-log_softmax(z, 1)[range(8), pairs.targets].mean() for z in (a, b)]
    assert losses["task"].item() == pytest.approx(sum(hard), rel=1e-5)

    def kl(z, target):
        return (softmax(target, 1) * (log_softmax(target, 1) - log_softmax(z, 1))).sum(1).mean()

    soft = 0.5 * 4 * (kl(a / 2, b / 2) + kl(b / 2, a / 2))
    assert losses["soft"].item() == pytest.approx(soft, rel=1e-4)
    g, h = (f["stage4"].double().numpy().mean((2, 3)).mean(0) for f in features)
    assert losses["discrepancy"].item() == pytest.approx(0.1 * np.sum((g - h) ** 2), rel=1e-4)


def test_order_of_the_views_does_not_matter(tiny_net, tiny_task, pairs, progress):
    method = ddgsd(tiny_net, tiny_task)
    first, second = (method(b, progress).losses for b in (pairs, swapped(pairs)))
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_equal_views_agree(tiny_net, tiny_task, batch, progress):
    method = ddgsd(tiny_net, tiny_task).eval()
    losses = method(batch._replace(views=(batch.inputs,)), progress).losses
    assert losses["soft"].abs() < 1e-6
    assert losses["discrepancy"] == 0


def test_both_views_share_their_statistics(tiny_net, tiny_task, pairs, progress):
    sizes = []
    tiny_net.stage1.register_forward_hook(lambda m, a, out: sizes.append(len(out)))
    ddgsd(tiny_net, tiny_task)(pairs, progress)
    assert sizes[-1:] == [16]
    assert tiny_net.stage1[1].num_batches_tracked == 1


def test_the_view_that_teaches_is_detached(tiny_net, tiny_task, pairs, progress):
    method = ddgsd(tiny_net, tiny_task, discrepancy_weight=0.0)
    kept = []
    tiny_net.fc.register_forward_hook(lambda m, a, out: kept.append(out))
    losses = method(pairs, progress).losses
    gradient = torch.autograd.grad(losses["soft"], kept[-1])[0]
    a, b = ((z / 3).softmax(1).detach() for z in kept[-1].chunk(2))
    # of a KL to a fixed target: τ (said − target) over the batch
    want = 3 * torch.cat([a - b, b - a]) / 8
    torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-6)


def test_discrepancy_trains_the_features_and_no_classifier(tiny_net, tiny_task, pairs, progress):
    loss = ddgsd(tiny_net, tiny_task)(pairs, progress).losses["discrepancy"]
    weights = [tiny_net.stage1[0].weight, tiny_net.stage4[0].weight, tiny_net.fc.weight]
    *stages, classifier = torch.autograd.grad(loss, weights, allow_unused=True)
    assert all(g.abs().sum() > 0 for g in stages)
    assert classifier is None


def test_without_its_terms_it_is_plain_cross_entropy_of_both_views(
    tiny_net, tiny_task, pairs, progress
):
    step = ddgsd(tiny_net, tiny_task, soft_weight=0.0, discrepancy_weight=0.0)(pairs, progress)
    out = tiny_net(torch.cat([pairs.inputs, pairs.views[0]]))
    mean = torch.nn.functional.cross_entropy(out, pairs.targets.repeat(2))
    torch.testing.assert_close(step.total, 2 * mean)
    torch.testing.assert_close(step.outputs, out[:8])


def test_a_batch_of_one_view_is_told_in_a_sentence(tiny_net, tiny_task, batch, progress):
    with pytest.raises(ConfigError, match=r"fill Batch\.views"):
        ddgsd(tiny_net, tiny_task)(batch, progress)


def test_needs_and_defaults():
    assert METHODS["ddgsd"].needs.views == 2
    defaults = {o.name: o.default for o in options(METHODS["ddgsd"]).values()}
    assert defaults == {"soft_weight": 1.0, "temperature": 3.0, "discrepancy_weight": 5e-4}
