"""BYOT against numpy and torch, and where its gradients stop."""

import pytest
import torch
from torch import nn

from selfdistill.core import METHODS, Batch, options
from selfdistill.methods.byot import masked_square
from selfdistill.taps import Taps

PAIRS = (1, 2, 3)


def byot(tiny_net, tiny_task, **keywords):
    torch.manual_seed(0)
    student = Taps(tiny_net, example=tiny_task.example)
    return METHODS["byot"](student, tiny_task, **keywords)


def test_masked_square_by_hand():
    x = torch.tensor([[1.0, -1.0, -1.0, 0.0, 2.0]])
    target = torch.tensor([[3.0, 0.5, -4.0, 0.0, -1.0]])
    assert masked_square(x, target).item() == 4 + 2.25 + 9  # -1, -4 and 0, 0 are not counted


def test_masked_square_is_a_mean_over_the_batch():
    torch.manual_seed(0)
    x, target = torch.randn(6, 9), torch.randn(6, 9)
    a, b = x.double().numpy(), target.double().numpy()
    want = ((a - b) ** 2)[(a > 0) | (b > 0)].sum() / 6
    assert masked_square(x, target).item() == pytest.approx(want, rel=1e-6)
    doubled = masked_square(torch.cat([x, x]), torch.cat([target, target]))
    assert doubled.item() == pytest.approx(want, rel=1e-6)


def test_hint_is_the_ports_sum_at_its_batch_size(tiny_net, tiny_task, progress):
    """The port sums over batches of 128, in one pass."""
    method = byot(tiny_net, tiny_task).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(128, 3, 16, 16, generator=generator)
    labels, index = torch.arange(128) % 5, torch.arange(128)
    _, features = method.student.forward_features(images)
    x = method.exits(features)[0][0].mean((2, 3)).detach().double().numpy()
    last = features["stage4"].mean((2, 3)).detach().double().numpy()
    want = 1e-6 * ((x - last) ** 2)[(x > 0) | (last > 0)].sum()
    passes = [
        method(Batch(images[i : i + size], labels[i : i + size], index[i : i + size]), progress)
        for size in (128, 32)
        for i in range(0, 128, size)
    ]
    hints = [step.losses["hint/1"].item() for step in passes]
    assert hints[0] == pytest.approx(want, rel=1e-5)
    assert sum(hints[1:]) / 4 == pytest.approx(want, rel=1e-5)  # as accumulation averages them


def test_hint_equals_numpy(tiny_net, tiny_task, batch, progress):
    method = byot(tiny_net, tiny_task, hint_weight=0.01)
    caught = {}
    for i, bottleneck in enumerate(method.exits.bottlenecks, 1):
        bottleneck.register_forward_hook(lambda m, a, out, i=i: caught.update({i: out}))
    tiny_net.stage4.register_forward_hook(lambda m, a, out: caught.update(last=out))
    losses = method(batch, progress).losses
    pooled = {k: v.detach().double().numpy().mean((2, 3)) for k, v in caught.items()}
    for i in PAIRS:
        positive = (pooled[i] > 0) | (pooled["last"] > 0)
        squares = (pooled[i] - pooled["last"]) ** 2 * positive
        want = 0.01 * 128 * squares.sum(1).mean()
        assert losses[f"hint/{i}"].item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.6])
def test_other_terms_equal_torch(alpha, tiny_net, tiny_task, batch, progress):
    method = byot(tiny_net, tiny_task, soft_weight=alpha).eval()
    losses = method(batch, progress).losses
    outputs = method.predict(batch.inputs)
    final = outputs["student"]
    ce = nn.functional.cross_entropy
    torch.testing.assert_close(losses["task"], (1 - alpha) * ce(final, batch.targets))
    for i in PAIRS:
        z = outputs[f"exit{i}"]
        torch.testing.assert_close(losses[f"task/{i}"], (1 - alpha) * ce(z, batch.targets))
        if alpha:
            target, log_probabilities = (final / 3).softmax(1), (z / 3).log_softmax(1)
            kl = nn.functional.kl_div(log_probabilities, target, reduction="batchmean")
            torch.testing.assert_close(losses[f"soft/{i}"], alpha * 9 * kl, rtol=1e-4, atol=1e-6)
        else:
            assert f"soft/{i}" not in losses


def gradient(loss, *tensors):
    grads = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
    return [g is not None and g.abs().sum().item() > 0 for g in grads]


@pytest.mark.parametrize("i", PAIRS)
def test_the_last_exit_is_no_pupil(i, tiny_net, tiny_task, batch, progress):
    losses = byot(tiny_net, tiny_task)(batch, progress).losses
    stages = [tiny_net.get_submodule(f"stage{n}")[0].weight for n in (1, 2, 3, 4)]
    want = [n <= i for n in (1, 2, 3, 4)] + [False]
    for kind in ("soft", "hint", "task"):
        assert gradient(losses[f"{kind}/{i}"], *stages, tiny_net.fc.weight) == want


def test_hint_trains_the_bottleneck_and_not_the_head(tiny_net, tiny_task, batch, progress):
    method = byot(tiny_net, tiny_task)
    loss = method(batch, progress).losses["hint/1"]
    bottleneck, head = method.exits.bottlenecks[0], method.exits.heads[0]
    first, last = next(bottleneck.parameters()), next(head.parameters())
    assert gradient(loss, first, last) == [True, False]


def test_everything_is_trained(tiny_net, tiny_task, batch, progress):
    method = byot(tiny_net, tiny_task)
    method(batch, progress).total.backward()
    assert all(p.grad is not None for p in method.parameters())


def test_without_soft_and_hint_it_is_deep_supervision(tiny_net, tiny_task, batch, progress):
    method = byot(tiny_net, tiny_task, soft_weight=0.0, hint_weight=0.0).eval()
    losses = method(batch, progress).losses
    assert losses.keys() == {"task", "task/1", "task/2", "task/3"}


def test_exits_and_defaults(tiny_net, tiny_task):
    method = byot(tiny_net, tiny_task)
    assert list(method.predictors()) == ["exit1", "exit2", "exit3", "student"]
    defaults = {o.name: o.default for o in options(METHODS["byot"]).values()}
    assert defaults == {
        "soft_weight": 0.1,
        "hint_weight": 1e-6,
        "temperature": 3.0,
        "bottleneck": "byot",
    }
