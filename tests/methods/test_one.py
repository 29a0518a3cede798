"""ONE against numpy and published numbers, and where its gradients stop."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfdistill.core import METHODS, ConfigError, options
from selfdistill.costs.macs import network_cost
from selfdistill.taps import Taps

TRUNK = {"stage1", "stage2", "stage3"}
OWN_END = {"stage4", "fc"}


def one(tiny_net, tiny_task, taps="auto", **keywords):
    torch.manual_seed(0)
    student = Taps(tiny_net, taps, example=tiny_task.example)
    return METHODS["one"](student, tiny_task, **keywords)


def caught(method, batch, progress):
    """A step, what every branch says in it, and the gate's weights, as float64 arrays."""
    outputs = {}
    modules = {"student": method.student.network, "gate": method.gate}
    modules |= {f"tail{k}": tail for k, tail in enumerate(method.tails, 2)}
    for name, module in modules.items():
        module.register_forward_hook(lambda m, a, out, name=name: outputs.update({name: out}))
    step = method(batch, progress)
    weights = outputs.pop("gate")
    return (
        step,
        [z.detach().double().numpy() for z in outputs.values()],
        weights.detach().double().numpy(),
    )


@pytest.mark.parametrize(
    ("epoch", "height"),
    [(0, 0.00674), (20, 0.06005), (40, 0.28650), (60, 0.73162), (80, 1.0), (200, 1.0)],
)
def test_ramp_is_that_of_the_public_code(epoch, height, tiny_net, tiny_task, batch, progress):
    full = one(tiny_net, tiny_task, warmup_fraction=0.0)(batch, progress).losses
    grown = one(tiny_net, tiny_task)
    then = progress._replace(step=torch.tensor(epoch * 10), total=torch.tensor(3000))
    losses = grown(batch, then).losses
    for k in (1, 2, 3):
        got = (losses[f"soft/{k}"] / full[f"soft/{k}"]).item()
        assert got == pytest.approx(height, abs=6e-6)


def test_mixture_is_that_of_numpy(tiny_net, tiny_task, batch, progress):
    method = one(tiny_net, tiny_task)
    _, outputs, weights = caught(method, batch, progress)
    assert weights.shape == (8, 3)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    assert (weights > 0).all()
    mixture = sum(w[:, None] * z for w, z in zip(weights.T, outputs, strict=True))
    method.load_state_dict(one(tiny_net, tiny_task).state_dict())  # the statistics moved
    ensemble = method.predictors()["ensemble"].train()
    with torch.no_grad():
        np.testing.assert_allclose(ensemble(batch.inputs).numpy(), mixture, rtol=1e-5, atol=1e-6)
    assert (mixture <= np.max(outputs, 0) + 1e-9).all()
    assert (mixture >= np.min(outputs, 0) - 1e-9).all()


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def test_terms_equal_numpy(tiny_net, tiny_task, batch, progress):
    method = one(tiny_net, tiny_task, warmup_fraction=0.0, soft_weight=0.7, temperature=4.0)
    step, outputs, weights = caught(method, batch, progress)
    mixture = sum(w[:, None] * z for w, z in zip(weights.T, outputs, strict=True))

    def ce(z):
        return -log_softmax(z)[np.arange(8), batch.targets.numpy()].mean()

    target = log_softmax(mixture / 4)
    want = {"task": ce(outputs[0]), "task/2": ce(outputs[1]), "task/3": ce(outputs[2])}
    want["ensemble"] = ce(mixture)
    for k, z in enumerate(outputs, 1):
        kl = (np.exp(target) * (target - log_softmax(z / 4))).sum(1).mean()
        want[f"soft/{k}"] = 0.7 * 16 * kl
    assert list(step.losses) == list(want)
    for name, value in want.items():
        assert step.losses[name].item() == pytest.approx(value, rel=1e-4), name


def reached(method, loss) -> set[str]:
    """The parts that a term's gradient reaches: stages by name, `tail 1`, `gate`."""
    names, parameters = zip(*method.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    hit = [n.split(".") for n, g in zip(names, grads, strict=True) if g is not None and g.any()]
    return {p[2] if p[0] == "student" else p[0] if p[0] == "gate" else f"tail {p[1]}" for p in hit}


def test_only_the_ensemble_trains_the_gate(tiny_net, tiny_task, batch, progress):
    method = one(tiny_net, tiny_task)
    losses = method(batch, progress).losses
    everything = TRUNK | OWN_END | {"tail 0", "tail 1", "gate"}
    assert reached(method, losses["ensemble"]) == everything
    assert reached(method, losses["task"]) == TRUNK | OWN_END
    assert reached(method, losses["soft/1"]) == TRUNK | OWN_END
    for k in (2, 3):
        branch = TRUNK | {f"tail {k - 2}"}
        assert reached(method, losses[f"task/{k}"]) == branch
        assert reached(method, losses[f"soft/{k}"]) == branch


def test_tails_are_the_last_stage_with_other_weights(tiny_net, tiny_task):
    method = one(tiny_net, tiny_task)
    keys = [n for n, _ in tiny_net.named_parameters() if n.startswith(("stage4", "fc"))]
    weights = [tiny_net.stage4[0].weight]
    for tail in method.tails:
        assert [n.removeprefix("network.") for n, _ in tail.named_parameters()] == keys
        weights.append(tail.network.stage4.get_submodule("0").weight)
    assert len({tuple(w.flatten().tolist()) for w in weights}) == 3
    assert len({tuple(w.flatten().sort()[0].tolist()) for w in weights}) == 1


def test_one_branch_is_the_student_twice(tiny_net, tiny_task, batch, progress):
    method = one(tiny_net, tiny_task, num_branches=1)
    step = method(batch, progress)
    assert step.losses.keys() == {"task", "ensemble", "soft/1"}
    loss = F.cross_entropy(step.outputs, batch.targets)
    torch.testing.assert_close(step.total, 2 * loss)


def test_without_soft_terms_labels_teach_all(tiny_net, tiny_task, batch, progress):
    losses = one(tiny_net, tiny_task, soft_weight=0.0)(batch, progress).losses
    assert losses.keys() == {"task", "task/2", "task/3", "ensemble"}


def test_ensemble_is_offered_and_costs_more(tiny_net, tiny_task):
    method = one(tiny_net, tiny_task)
    ensemble, student = method.predictors().values()
    spent, base = (
        network_cost(ensemble, tiny_task.example),
        network_cost(student, tiny_task.example),
    )
    tails = sum(p.numel() for p in method.tails.parameters())
    gate = sum(p.numel() for p in method.gate.parameters())
    assert spent.parameters == base.parameters + tails + gate
    assert spent.macs > base.macs


def test_branches_start_at_the_last_tap_but_one(tiny_net, tiny_task, batch, progress):
    method = one(tiny_net, tiny_task, ["stage2", "stage4"])
    assert {n.split(".")[1] for n, _ in method.tails[0].named_parameters()} == {
        "stage3", "stage4", "fc"
    }  # fmt: skip
    assert method.gate.layers[0].in_features == 8
    assert torch.isfinite(method(batch, progress).total)


@pytest.mark.parametrize(
    ("taps", "keywords", "message"),
    [
        (["stage4"], {}, "there is only one tap"),
        ("auto", {"num_branches": 0}, "counts the student's own branch and is not 0"),
        ("auto", {"warmup_fraction": 80}, "between 0 and 1, not 80"),
    ],
)
def test_wrong_options_are_told(taps, keywords, message, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=message):
        one(tiny_net, tiny_task, taps, **keywords)


class Skipping(nn.Sequential):
    def forward(self, x):
        last = self.stage4(self.stage3(self.stage2(self.stage1(x)))) + x.mean()
        return self.fc(self.flat(self.pool(last)))


def test_network_with_a_way_around_is_refused(tiny_net, tiny_task):
    network = Skipping(OrderedDict(tiny_net.named_children()))
    with pytest.raises(ConfigError, match="Skipping cannot be cut into stages"):
        one(network, tiny_task, ["stage3", "stage4"])


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["one"]).values()}
    assert defaults == {
        "num_branches": 3,
        "temperature": 3.0,
        "soft_weight": 1.0,
        "warmup_fraction": 80 / 300,
    }
