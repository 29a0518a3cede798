"""MUSE among networks that learn together: who is compared with whom, and who learns from it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from selfdistill.core import METHODS, ConfigError, options
from selfdistill.methods.muse_online import MuseOnline
from selfdistill.taps import Taps

CHANCE = 2 * math.log(2)
PAIRS = (1, 2, 3)
LOGITS = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
OTHERS = torch.tensor([[3.0, 1.0, 0.0], [2.0, -1.0, 0.0]])


def make_peer(seed: int) -> nn.Module:
    """Three stages, narrower than the student."""
    torch.manual_seed(seed)
    stages = [
        nn.Sequential(nn.Conv2d(c, w, 3, s, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU())
        for c, w, s in ((3, 6, 1), (6, 8, 2), (8, 10, 2))
    ]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5))


def online(tiny_net, tiny_task, peers: int = 1, **keywords) -> MuseOnline:
    student = Taps(tiny_net, example=tiny_task.example)
    others = [
        Taps(make_peer(k), ["0", "1", "2"], example=tiny_task.example) for k in range(1, peers + 1)
    ]
    torch.manual_seed(0)
    return METHODS["muse-online"](student, others, tiny_task, **keywords)


def numbers(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def by_numpy(loss, local: torch.Tensor, glob: torch.Tensor) -> float:
    """The Jensen-Shannon loss of all pairs."""
    scores = loss.local_critic(local, glob)
    together, every = numbers(scores.positive), numbers(scores.negative)
    apart = np.concatenate([np.delete(x, i, -1).ravel() for i, x in enumerate(every)])
    return np.logaddexp(0, -together).mean() + np.logaddexp(0, apart).mean()


@pytest.mark.parametrize("peers", [1, 2])
def test_information_is_about_the_others_last_features(peers, tiny_net, tiny_task, batch, progress):
    method = online(tiny_net, tiny_task, peers, information_weight=0.3, si_weight=0.5)
    maps = {}
    for k, exits in enumerate(method.exits):
        for i, bottleneck in enumerate(exits.bottlenecks, 1):
            keep = lambda module, args, out, at=(k, i): maps.update({at: out.detach()})  # noqa: E731
            bottleneck.register_forward_hook(keep)
    deep = []
    for taps in [method.student, *method.peers]:
        taps.forward_features(batch.inputs)  # training mode: batch statistics
        deep.append(list(taps.forward_features(batch.inputs)[1].values())[-1].mean((2, 3)).detach())
    step = method(batch, progress)
    for k in range(peers + 1):
        place, others = f"peer{k}/" if k else "", deep[:k] + deep[k + 1 :]
        stages = (1, 2) if k else PAIRS
        for i in stages:
            critics = method.critics[k]
            assert len(critics["mutual"]) == len(stages) * peers
            each = [
                by_numpy(critics["mutual"][j * len(stages) + i - 1], maps[k, i], other)
                for j, other in enumerate(others)
            ]
            own = by_numpy(critics["self"][i - 1], maps[k, i], maps[k, i].mean((2, 3)))
            want = {"mutual": np.mean(each), "self": own}
            for term, value in want.items():
                assert step.losses[f"{place}{term}/{i}"].item() == pytest.approx(value, rel=1e-5)


def test_terms_of_three_networks(tiny_net, tiny_task, batch, progress):
    step = online(tiny_net, tiny_task, 2)(batch, progress)
    want = {"task", "soft"} | {f"{kind}/{i}" for kind in ("mutual", "self") for i in PAIRS}
    for peer in ("peer1/", "peer2/"):
        want |= {peer + "task", peer + "soft"}
        want |= {f"{peer}{kind}/{i}" for kind in ("mutual", "self") for i in (1, 2)}
    assert step.losses.keys() == want
    assert {"peer2/mutual/2", "peer2/score/self/1", "score/mutual/3"} < step.monitors.keys()


@pytest.mark.parametrize("peers", [1, 2])
@pytest.mark.parametrize("combine", ["add", "mul"])
def test_every_parameter_is_reached(peers, combine, tiny_net, tiny_task, batch, progress):
    method = online(tiny_net, tiny_task, peers, combine=combine)
    method(batch, progress).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


@pytest.mark.parametrize(("combine", "want"), [("add", 8.317766), ("mul", 5.765436)])
@pytest.mark.parametrize("peers", [1, 2])
def test_critics_that_know_nothing_cost_what_chance_costs(
    combine, want, peers, tiny_net, tiny_task, batch, progress
):
    method = online(tiny_net, tiny_task, peers, combine=combine, information_weight=1.0)
    with torch.no_grad():
        for parameter in method.critics.parameters():
            parameter.zero_()
    monitors = method(batch, progress).monitors
    kinds = ("mutual", "self") if combine == "add" else ("product",)
    student_total = sum(v.item() for name, v in monitors.items() if name.startswith(kinds))
    total = sum(v.item() for n, v in monitors.items() if n.removeprefix("peer1/").startswith(kinds))
    assert student_total == pytest.approx(want, rel=1e-6)
    assert total - student_total == pytest.approx(want * 2 / 3, rel=1e-6)  # two pairs, not three


@pytest.mark.parametrize(("logits", "peer_logits", "want"), [
    (LOGITS, [OTHERS], 1.129735),
    (OTHERS, [LOGITS], 1.280265),
    (LOGITS, [OTHERS, LOGITS], 1.129735 / 2),
])  # fmt: skip
def test_soft_term_is_that_of_mutual_learning(logits, peer_logits, want, tiny_net, tiny_task):
    method = online(tiny_net, tiny_task)
    terms = method._output_losses(logits, peer_logits, torch.tensor([0, 1]))
    assert terms["soft"].item() == pytest.approx(want, abs=1e-6)
    torch.testing.assert_close(
        terms["task"], nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    )


def test_without_information_it_is_mutual_learning(tiny_net, tiny_task, batch, progress):
    method = online(tiny_net, tiny_task, information_weight=0.0)
    assert not list(method.exits.parameters())
    assert not list(method.critics.parameters())
    losses = method.eval()(batch, progress).losses
    outs = method.predict(batch.inputs)
    assert losses.keys() == {"task", "soft", "peer1/task", "peer1/soft"}
    for place, me, other in (("", "student", "peer1"), ("peer1/", "peer1", "student")):
        ce = nn.functional.cross_entropy(outs[me], batch.targets)
        torch.testing.assert_close(losses[place + "task"], ce)
        log_probabilities, target = outs[me].log_softmax(1), outs[other].softmax(1)
        kl = nn.functional.kl_div(log_probabilities, target, reduction="batchmean")
        torch.testing.assert_close(losses[place + "soft"], kl, rtol=1e-4, atol=1e-6)


def test_twins_have_nothing_to_say_to_one_another(tiny_net, tiny_task, batch, progress):
    twin = Taps(make_peer(1), ["0", "1", "2"], example=tiny_task.example)
    other = Taps(make_peer(1), ["0", "1", "2"], example=tiny_task.example)
    losses = METHODS["muse-online"](twin, [other], tiny_task)(batch, progress).losses
    assert losses["soft"].item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(losses["task"], losses["peer1/task"])


def test_roles_can_be_exchanged(tiny_net, tiny_task, batch, progress):
    method = online(tiny_net, tiny_task)
    turned = METHODS["muse-online"](method.peers[0], [method.student], tiny_task)
    for original, swapped in ((method.exits, turned.exits), (method.critics, turned.critics)):
        swapped[0].load_state_dict(original[1].state_dict())
        swapped[1].load_state_dict(original[0].state_dict())
    first, second = method(batch, progress).losses, turned(batch, progress).losses
    assert first.keys() != second.keys()  # four taps and three
    for name, loss in first.items():
        other = name.removeprefix("peer1/") if name.startswith("peer1/") else f"peer1/{name}"
        torch.testing.assert_close(second[other], loss)


def test_all_networks_are_left_the_student_last(tiny_net, tiny_task, batch):
    method = online(tiny_net, tiny_task, 2).eval()
    networks = method.predictors()
    assert list(networks) == ["peer1", "peer2", "student"]
    assert networks["student"] is tiny_net
    assert networks["peer2"] is method.peers[1].network
    outputs = method.predict(batch.inputs)
    assert torch.equal(outputs["peer1"], networks["peer1"](batch.inputs))


def test_diagnoses_say_whose_term_it_is(tiny_net, tiny_task):
    method = online(tiny_net, tiny_task, 2)
    warnings = method.diagnose(
        {"mutual/2": CHANCE, "peer2/self/1": 5e-4, "peer1/self/1": 0.7, "peer1/score/self/1": 1.386}
    )
    assert list(warnings) == ["mutual/2", "peer2/self/1"]
    assert warnings["peer2/self/1"].startswith("saturated")


@pytest.mark.slow
def test_three_networks_learn_eight_images(tiny_net, tiny_task, batch, progress):
    method = online(tiny_net, tiny_task, 2, information_weight=1.0, critic_width=32)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9)
    for _ in range(100):
        step = method(batch, progress)
        optimizer.zero_grad()
        step.total.backward()
        optimizer.step()
    raw = {name: value for name, value in step.monitors.items() if "score" not in name}
    assert len(raw) == 14
    assert all(value < 1.2 for value in raw.values()), raw
    for out in method.predict(batch.inputs).values():
        assert (out.argmax(1) == batch.targets).all()


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"peers": 0}, "two or more: give --peer"),
        ({"supervised_weight": 0.0, "soft_weight": 0.0}, "last layers need a loss"),
        ({"combine": "mul", "estimator": "nwj"}, "above zero, and 'nwj'.*combine='add'"),
        ({"critic": "global", "negatives": "all"}, "global critic.*negatives='roll'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(keywords, sentence, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=sentence):
        online(tiny_net, tiny_task, **keywords)


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["muse-online"]).values()}
    assert defaults == {
        "combine": "add",
        "information_weight": 0.1,
        "mi_weight": 1.0,
        "si_weight": 1.0,
        "supervised_weight": 1.0,
        "soft_weight": 1.0,
        "temperature": 1.0,
        "critic": "separable",
        "critic_width": None,
        "negatives": None,
        "estimator": "jsd",
        "global_critic_weight": 0.0,
        "bottleneck": "slim",
        "detach_peer": False,
    }
    assert all(o.meaning for o in options(METHODS["muse-online"]).values())
