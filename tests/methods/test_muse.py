"""MUSE against numpy, its gradients, its switches and its sentences."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from selfdistill.core import METHODS, Batch, ConfigError, Progress, options
from selfdistill.models import build
from selfdistill.modules.exits import Exits
from selfdistill.taps import Taps
from selfdistill.tasks import Classification

CHANCE = 2 * math.log(2)
PAIRS = (1, 2, 3)


def muse(tiny_net, tiny_task, **keywords):
    torch.manual_seed(0)
    student = Taps(tiny_net, example=tiny_task.example)
    return METHODS["muse"](student, tiny_task, **keywords)


def at_step(step: int) -> Progress:
    return Progress(torch.tensor(0), torch.tensor(0), torch.tensor(step), torch.tensor(1000))


def numbers(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy()


class Reference:
    """Maps and the last feature, caught on the way, and the losses computed from them in numpy."""

    def __init__(self, method) -> None:
        self.method, self.maps, self.features = method, {}, {}
        for i, bottleneck in enumerate(method.exits.bottlenecks, 1):
            bottleneck.register_forward_hook(self.keeper(self.maps, i))
        for i in (1, 2, 3, 4):
            stage = method.student.network.get_submodule(f"stage{i}")
            stage.register_forward_hook(self.keeper(self.features, i))

    def keeper(self, store: dict, i: int):
        return lambda module, args, out: store.update({i: numbers(out)})

    def scores(self, critic: nn.Module, local: np.ndarray, glob: np.ndarray) -> np.ndarray:
        """(image of the cell, cell, image of the global view)."""
        p = {k: numbers(v) for k, v in critic.local_critic.state_dict().items()}
        cells = local.reshape(*local.shape[:2], -1).transpose(0, 2, 1)
        left = cells @ p["local.weight"].T + p["local.bias"]
        hidden = np.maximum(glob @ p["layers.0.weight"].T + p["layers.0.bias"], 0)
        right = glob @ p["shortcut.weight"].T + p["shortcut.bias"] + hidden @ p["layers.2.weight"].T
        return np.einsum("inu,ju->inj", left, right) / math.sqrt(left.shape[-1])

    def loss(self, term: str, i: int, shift: int | None = None) -> float:
        local = self.maps[i]
        glob = (self.features[4] if term == "mutual" else local).mean((2, 3))
        scores = self.scores(self.method.critics[term][i - 1], local, glob)
        b = len(local)
        together = np.stack([scores[k, :, k] for k in range(b)])
        apart = [
            scores[j, :, k]
            for j in range(b)
            for k in range(b)
            if (j != k if shift is None else j == (k + shift) % b)
        ]
        return np.logaddexp(0, -together).mean() + np.logaddexp(0, np.stack(apart)).mean()


def test_sum_equals_numpy(tiny_net, tiny_task, batch, progress):
    method = muse(tiny_net, tiny_task, mi_weight=2.0, si_weight=0.5)
    reference = Reference(method)
    step = method(batch, progress)
    for i in PAIRS:
        for term in ("mutual", "self"):
            want = reference.loss(term, i)
            assert step.monitors[f"{term}/{i}"].item() == pytest.approx(want, rel=1e-5)
            assert step.losses[f"{term}/{i}"].item() == pytest.approx(want, rel=1e-5)


def test_product_equals_numpy(tiny_net, tiny_task, batch, progress):
    method = muse(
        tiny_net, tiny_task, combine="mul", information_weight=0.3, mi_weight=2.0, si_weight=0.5
    )
    reference = Reference(method)
    step = method(batch, progress)
    for i in PAIRS:
        want = reference.loss("mutual", i) ** 2 * reference.loss("self", i) ** 0.5
        assert step.monitors[f"product/{i}"].item() == pytest.approx(want, rel=1e-5)


def test_roll_compares_with_one_other_image(tiny_net, tiny_task, batch):
    """Which one is drawn anew in each step, and is the same for all terms of a step."""
    method = muse(tiny_net, tiny_task, negatives="roll")
    reference = Reference(method)
    terms = [(term, i) for term in ("mutual", "self") for i in PAIRS]
    shifts = []
    for step in range(8):
        monitors = method(batch, at_step(step)).monitors
        got = np.array([monitors[f"{term}/{i}"].item() for term, i in terms])
        error = {s: max(abs(got - [reference.loss(*t, s) for t in terms])) for s in range(1, 8)}
        best, second = sorted(error, key=error.get)[:2]
        assert error[best] < 1e-5 < 1e-3 < error[second]
        shifts.append(best)
    assert len(set(shifts)) > 2


def test_pairs_of_a_class_equal_numpy(tiny_net, tiny_task, batch, progress):
    method = muse(tiny_net, tiny_task, positives="class")
    reference = Reference(method)
    monitors = method(batch, progress).monitors
    same = np.equal.outer(batch.targets.numpy(), batch.targets.numpy())
    for i in PAIRS:
        for term in ("mutual", "self"):
            local = reference.maps[i]
            glob = (reference.features[4] if term == "mutual" else local).mean((2, 3))
            scores = reference.scores(method.critics[term][i - 1], local, glob).swapaxes(0, 1)
            want = (
                np.logaddexp(0, -scores[:, same]).mean() + np.logaddexp(0, scores[:, ~same]).mean()
            )
            assert monitors[f"{term}/{i}"].item() == pytest.approx(want, rel=1e-5)


def test_pairs_of_a_class_take_a_batch_of_one_class(tiny_net, tiny_task, batch, progress):
    """Then there is no negative, and the loss is that of the positives."""
    method = muse(tiny_net, tiny_task, positives="class")
    step = method(batch._replace(targets=torch.zeros_like(batch.targets)), progress)
    step.total.backward()
    assert all(v.isfinite() for v in (*step.losses.values(), *step.monitors.values()))
    assert all(p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize(
    "keywords", [{"critic": "concat"}, {"negatives": "roll"}, {"estimator": "infonce"}], ids=str
)
def test_pairs_of_a_class_need_all_pairs(keywords, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="positives='class' compares all pairs"):
        muse(tiny_net, tiny_task, positives="class", **keywords)


def test_task_and_exit_terms_are_those_of_torch(tiny_net, tiny_task, batch, progress):
    method = muse(tiny_net, tiny_task).eval()
    step = method(batch, progress)
    outputs = method.predict(batch.inputs)
    ce = nn.functional.cross_entropy
    torch.testing.assert_close(step.losses["task"], ce(outputs["student"], batch.targets))
    for i in PAIRS:
        want = 0.7 * ce(outputs[f"exit{i}"], batch.targets)
        torch.testing.assert_close(step.losses[f"task/{i}"], want)
    assert torch.equal(step.outputs, outputs["student"])


@pytest.mark.parametrize(("combine", "want"), [("add", 6 * CHANCE), ("mul", 3 * CHANCE**2)])
@pytest.mark.parametrize("critic", ["separable", "concat"])
def test_starts_at_chance(combine, want, critic):
    assert want == pytest.approx({"add": 8.3178, "mul": 5.7654}[combine], abs=1e-4)
    torch.manual_seed(0)
    task = Classification("abcde", torch.zeros(2, 3, 16, 16))
    student = Taps(build("cifar/resnet8", num_classes=5), example=task.example)
    method = METHODS["muse"](student, task, combine=combine, information_weight=1.0, critic=critic)
    batch = Batch(torch.randn(16, 3, 16, 16), torch.arange(16) % 5, torch.arange(16))
    monitors = method(batch, at_step(0)).monitors
    kinds = ("mutual", "self") if combine == "add" else ("product",)
    total = sum(v.item() for k, v in monitors.items() if k.startswith(kinds))
    assert total == pytest.approx(want, rel=0.04)


ALL = {"task", *(f"{kind}/{i}" for kind in ("task", "soft", "mutual", "self") for i in PAIRS)}
TABLE_5 = {  # row: (keywords, kinds of terms beside the student's own)
    "baseline": ({"information_weight": 0, "supervised_weight": 0, "soft_weight": 0}, set()),
    "CE": ({"information_weight": 0, "soft_weight": 0}, {"task"}),
    "CE + KD": ({"information_weight": 0}, {"task", "soft"}),
    "MI": ({"si_weight": 0, "supervised_weight": 0, "soft_weight": 0}, {"mutual"}),
    "SI": ({"mi_weight": 0, "supervised_weight": 0, "soft_weight": 0}, {"self"}),
    "MI + CE": ({"si_weight": 0, "soft_weight": 0}, {"mutual", "task"}),
    "MI + CE + KD": ({"si_weight": 0}, {"mutual", "task", "soft"}),
    "(MI + SI)": ({"supervised_weight": 0, "soft_weight": 0}, {"mutual", "self"}),
    "(MI × SI)": (
        {"combine": "mul", "supervised_weight": 0, "soft_weight": 0},
        {"mutual", "self"},
    ),
    "(MI + SI) + CE": ({"soft_weight": 0}, {"mutual", "self", "task"}),
    "(MI × SI) + CE": ({"combine": "mul", "soft_weight": 0}, {"mutual", "self", "task"}),
    "(MI + SI) + CE + KD": ({}, {"mutual", "self", "task", "soft"}),
    "(MI × SI) + CE + KD": ({"combine": "mul"}, {"mutual", "self", "task", "soft"}),
}


def orphans(method, loss) -> list[str]:
    """Parameters that the loss does not reach."""
    loss.backward()
    return [name for name, p in method.named_parameters() if p.grad is None]


@pytest.mark.parametrize("row", TABLE_5)
def test_rows_of_table_5(row, tiny_net, tiny_task, batch, progress):
    keywords, kinds = TABLE_5[row]
    method = muse(tiny_net, tiny_task, **keywords)
    step = method(batch, progress)
    assert step.losses.keys() == {"task", *(f"{kind}/{i}" for kind in kinds for i in PAIRS)}
    assert orphans(method, step.total) == []
    heads = kinds & {"task", "soft"}
    assert len(method.exits.heads) == (3 if heads else 0)
    assert list(method.predictors())[:-1] == ([f"exit{i}" for i in PAIRS] if heads else [])


def test_defaults_have_all_terms(tiny_net, tiny_task, batch, progress):
    assert muse(tiny_net, tiny_task)(batch, progress).losses.keys() == ALL


@pytest.mark.parametrize(
    "keywords",
    [
        {"feature_source": "raw"},
        {"feature_source": "raw", "si_global_view": "encoded"},
        {"feature_source": "raw", "supervised_weight": 0, "soft_weight": 0},
        {
            "feature_source": "raw",
            "si_global_view": "encoded",
            "supervised_weight": 0,
            "soft_weight": 0,
        },
        {"critic": "concat", "critic_width": 16},
        {"critic": "global", "critic_width": 16},
        {"global_critic_weight": 0.5},
        {"estimator": "infonce", "combine": "mul"},
        {"estimator": "dv"},
        {"estimator": "nwj"},
        {"bottleneck": "byot"},
        {"detach_last": True},
        {"temperature": 1.0, "negatives": "roll"},
    ],
    ids=str,
)
def test_every_parameter_is_reached(keywords, tiny_net, tiny_task, batch, progress):
    method = muse(tiny_net, tiny_task, **keywords)
    step = method(batch, progress)
    assert all(v.isfinite() for v in (*step.losses.values(), *step.monitors.values()))
    assert orphans(method, step.total) == []


def reached(loss, method) -> set[str]:
    """Which parts a term's gradient reaches."""
    network = method.student.network
    parts = {f"stage{i}": network.get_submodule(f"stage{i}") for i in (1, 2, 3, 4)}
    parts |= {"fc": network.fc}
    for i in PAIRS:
        parts[f"bottleneck{i}"] = method.exits.bottlenecks[i - 1]
        parts[f"head{i}"] = method.exits.heads[i - 1]
        parts |= {f"{term} critic{i}": c[i - 1] for term, c in method.critics.items()}
    names = set()
    for name, part in parts.items():
        grads = torch.autograd.grad(
            loss, list(part.parameters()), retain_graph=True, allow_unused=True
        )
        if any(g is not None and g.abs().sum() > 0 for g in grads):
            names.add(name)
    return names


@pytest.mark.parametrize("i", PAIRS)
def test_gradients_go_where_the_paper_says(i, tiny_net, tiny_task, batch, progress):
    method = muse(tiny_net, tiny_task)
    losses = method(batch, progress).losses
    before = {f"stage{n}" for n in range(1, i + 1)} | {f"bottleneck{i}"}
    everything = {f"stage{n}" for n in (1, 2, 3, 4)}
    assert reached(losses["task"], method) == everything | {"fc"}
    assert reached(losses[f"task/{i}"], method) == before | {f"head{i}"}
    assert reached(losses[f"soft/{i}"], method) == before | {f"head{i}"}
    assert reached(losses[f"self/{i}"], method) == before | {f"self critic{i}"}
    both = everything | {f"bottleneck{i}", f"mutual critic{i}"}
    assert reached(losses[f"mutual/{i}"], method) == both


@pytest.mark.parametrize("i", PAIRS)
def test_detached_last_feature_learns_from_mi_no_more(i, tiny_net, tiny_task, batch, progress):
    method = muse(tiny_net, tiny_task, detach_last=True)
    want = {f"stage{n}" for n in range(1, i + 1)} | {f"bottleneck{i}", f"mutual critic{i}"}
    assert reached(method(batch, progress).losses[f"mutual/{i}"], method) == want


def test_monitors_are_detached(tiny_net, tiny_task, batch, progress):
    step = muse(tiny_net, tiny_task, information_weight=0.5, mi_weight=3.0)(batch, progress)
    assert not any(v.requires_grad for v in step.monitors.values())
    assert torch.equal(step.losses["mutual/1"].detach(), step.monitors["mutual/1"])
    assert {f"score/{t}/{i}" for t in ("mutual", "self") for i in PAIRS} < step.monitors.keys()


@pytest.mark.parametrize(
    ("value", "word"), [(CHANCE, "still at chance"), (1.38, "still at chance"), (5e-4, "saturated")]
)
def test_diagnoses(value, word, tiny_net, tiny_task):
    method = muse(tiny_net, tiny_task)
    warnings = method.diagnose({"mutual/2": value, "self/1": 0.7, "score/self/1": 1.386})
    assert list(warnings) == ["mutual/2"]
    assert warnings["mutual/2"].startswith(word)


def test_nothing_to_say_of_a_term_that_works(tiny_net, tiny_task):
    method = muse(tiny_net, tiny_task)
    assert method.diagnose({"mutual/1": 1.2, "self/1": 0.01, "score/mutual/1": 0.0}) == {}


def test_nothing_to_say_of_another_estimator(tiny_net, tiny_task):
    assert muse(tiny_net, tiny_task, estimator="dv").diagnose({"mutual/1": CHANCE}) == {}


@pytest.mark.parametrize("estimator", ["dv", "nwj"])
def test_a_product_of_negative_losses_is_refused(estimator, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=f"above zero, and '{estimator}'.*combine='add'"):
        muse(tiny_net, tiny_task, combine="mul", estimator=estimator)


@pytest.mark.parametrize("critic", ["concat", "global"])
def test_all_pairs_of_a_costly_critic_are_refused(critic, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=f"{critic} critic.*negatives='roll'"):
        muse(tiny_net, tiny_task, critic=critic, negatives="all")


@pytest.mark.parametrize(
    ("keywords", "weight"),
    [
        ({}, 0.1),
        ({"positives": "class"}, 0.3),
        ({"positives": "class", "information_weight": 0.1}, 0.1),
        ({"information_weight": 0.0}, 0.0),
    ],
)
def test_the_weight_follows_from_what_belongs_together(keywords, weight, tiny_net, tiny_task):
    assert muse(tiny_net, tiny_task, **keywords).information_weight == weight


def test_one_tap_is_not_enough(tiny_net, tiny_task):
    lonely = Taps(tiny_net, ["stage4"], example=tiny_task.example)
    with pytest.raises(ConfigError, match="two taps"):
        METHODS["muse"](lonely, tiny_task)


def test_defaults():
    defaults = {o.name: o.default for o in options(METHODS["muse"]).values()}
    assert defaults == {
        "combine": "add",
        "information_weight": None,
        "mi_weight": 1.0,
        "si_weight": 1.0,
        "supervised_weight": 0.7,
        "soft_weight": 0.3,
        "temperature": 3.0,
        "critic": "separable",
        "critic_width": None,
        "negatives": None,
        "positives": "instance",
        "estimator": "jsd",
        "global_critic_weight": 0.0,
        "bottleneck": "slim",
        "feature_source": "bottleneck",
        "si_global_view": "pool",
        "detach_last": False,
    }


def test_what_is_served_has_no_critic(tiny_net, tiny_task):
    method = muse(tiny_net, tiny_task)
    assert isinstance(method.exits, Exits)
    critics = {id(p) for p in method.critics.parameters()}
    assert critics
    for network in method.predictors().values():
        assert not critics & {id(p) for p in network.parameters()}


def test_learns_eight_images(tiny_net, tiny_task, batch):
    """MI and SI fall below chance, and every exit knows the labels."""
    method = muse(tiny_net, tiny_task, information_weight=1.0, critic_width=32)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    for step in range(60):
        losses = method(batch, at_step(step))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    for term in ("mutual", "self"):
        assert all(losses.monitors[f"{term}/{i}"] < 1.0 for i in PAIRS)
    for out in method.predict(batch.inputs).values():  # in training mode: the statistics are young
        assert (out.argmax(1) == batch.targets).all()
