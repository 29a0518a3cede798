"""Local modules against numpy, against one joint backward pass, and what is kept in memory."""

import copy
import weakref

import numpy as np
import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from offline_pairs import STAGES, features, offline, reached, teacher_net
from torch import Tensor, nn

from selfdistill.core import Batch, ConfigError, Method, Progress


def unit(x: np.ndarray) -> np.ndarray:
    energy = (x**2).mean(1).reshape(len(x), -1)
    return energy / np.linalg.norm(energy, axis=1, keepdims=True)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    logits = logits - logits.max(1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels].mean()


def attention(method: Method, batch: Batch) -> list[float]:
    pairs = zip(*features(method, batch.inputs), strict=True)
    return [((unit(x) - unit(target)) ** 2).mean() for x, target in pairs]


def test_terms_equal_numpy(tiny_net, tiny_task, batch, progress):
    method = offline("lakd", tiny_net, tiny_task, attention_weight=200.0, supervised_weight=0.5)
    step = method(batch, progress)
    maps, _ = features(method, batch.inputs)
    gaps = attention(method, batch)
    for k, (head, x, gap) in enumerate(zip(method.exits.heads, maps, gaps, strict=False), 1):
        weight, bias = (p.detach().double().numpy() for p in head[-1].parameters())
        supervised = cross_entropy(x.mean((2, 3)) @ weight.T + bias, batch.targets.numpy())
        assert step.losses[f"local/{k}"].item() == pytest.approx(
            0.5 * supervised + 200 * gap, rel=1e-4
        )
        assert step.monitors[f"task/{k}"].item() == pytest.approx(0.5 * supervised, rel=1e-4)
        assert step.monitors[f"attention/{k}"].item() == pytest.approx(200 * gap, rel=1e-4)
    assert step.losses["attention/4"].item() == pytest.approx(200 * gaps[3], rel=1e-4)
    local = {f"local/{k}" for k in (1, 2, 3)}
    assert step.losses.keys() == {"task", "soft", "attention/4"} | local


def test_the_last_module_has_the_terms_of_attention_transfer(tiny_net, tiny_task, batch, progress):
    options = {"soft_weight": 0.5, "temperature": 2.0}
    method = offline("lakd", tiny_net, tiny_task, **options)
    step, other = (
        m(batch, progress) for m in (method, offline("at", tiny_net, tiny_task, **options))
    )
    assert torch.equal(step.outputs, tiny_net(batch.inputs))
    for name in ("task", "soft", "attention/4"):
        assert torch.equal(step.losses[name], other.losses[name])


def test_equal_networks_look_at_the_same(tiny_net, tiny_task, batch, progress):
    method = offline("lakd", tiny_net, tiny_task, copy.deepcopy(tiny_net))
    step = method(batch, progress)
    assert step.losses["attention/4"] == 0
    for k in (1, 2, 3):
        assert step.monitors[f"attention/{k}"] == 0
        assert step.losses[f"local/{k}"] == step.monitors[f"task/{k}"]


both_ways = pytest.mark.parametrize("local", [True, False], ids=["local", "joint"])


@both_ways
def test_no_gradient_crosses_a_border(tiny_net, tiny_task, batch, progress, local):
    method = offline("lakd", tiny_net, tiny_task, local_backward=local).train()
    losses = method(batch, progress).losses
    for k in (1, 2, 3):
        assert reached(losses[f"local/{k}"], tiny_net) == {f"stage{k}"}
        assert reached(losses[f"local/{k}"], method.exits.heads) == {str(k - 1)}
    assert (
        reached(losses["task"], tiny_net) == reached(losses["soft"], tiny_net) == {"stage4", "fc"}
    )
    assert reached(losses["attention/4"], tiny_net) == {"stage4"}
    losses["attention/4"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def stepped(method: Method, batch: Batch, progress: Progress) -> dict[str, Tensor]:
    """Losses, gradients and buffers after a step with dropout drawn anew."""
    torch.manual_seed(3)
    step = method(batch, progress)
    step.total.backward()
    grads = {n: p.grad for n, p in method.named_parameters() if p.requires_grad}
    return {**step.losses, **grads, **dict(method.named_buffers())}


def check_equal(network: nn.Module, task, batch: Batch, progress: Progress, **options) -> None:
    both = [
        offline("lakd", copy.deepcopy(network), task, local_backward=local, **options).train()
        for local in (True, False)
    ]
    got, want = (stepped(method, batch, progress) for method in both)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert (got[name] is None) == (value is None), name
        if value is not None:
            torch.testing.assert_close(got[name], value, msg=name)


@pytest.mark.parametrize(
    "options",
    [{}, {"warmup_fraction": 0.5}, {"attention_weight": 0.0}, {"supervised_weight": 0.0}],
    ids=["defaults", "warm-up", "labels", "maps"],
)
def test_gradients_are_those_of_one_joint_pass(tiny_net, tiny_task, batch, progress, options):
    check_equal(tiny_net, tiny_task, batch, progress._replace(step=torch.tensor(40)), **options)


def test_gradients_are_those_of_one_joint_pass_with_dropout(tiny_net, tiny_task, batch, progress):
    for name in STAGES:
        tiny_net.get_submodule(name).append(nn.Dropout2d(0.3))
    check_equal(tiny_net, tiny_task, batch, progress)


def test_gradients_are_those_of_one_joint_pass_of_shared_and_frozen_weights(
    tiny_task, batch, progress
):
    network = teacher_net((8, 8, 8, 8))
    network.stage3[0].weight = network.stage2[0].weight
    network.stage1.requires_grad_(False)
    network.stage4[1].weight.requires_grad_(False)
    check_equal(network, tiny_task, batch, progress)


def test_training_is_that_of_one_joint_pass(tiny_net, tiny_task, batch, progress):
    states = []
    for local in (True, False):
        network = copy.deepcopy(tiny_net)
        method = offline("lakd", network, tiny_task, local_backward=local).train()
        optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9)
        for _ in range(4):
            optimizer.zero_grad()
            (method(batch, progress).total / 2).backward()  # two passes accumulate
            (method(batch, progress).total / 2).backward()
            nn.utils.clip_grad_norm_(method.parameters(), 1.0)
            optimizer.step()
        states.append(network.state_dict())
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value, rtol=1e-4, atol=1e-5, msg=name)


class SavedBytes:
    """Bytes that graphs keep for their backward passes, as a context."""

    def __init__(self) -> None:
        self.bytes = self.peak = 0
        self.kept: dict[int, int] = {}  # number of graphs that keep a storage
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda kept: kept.tensor)

    def pack(self, tensor: Tensor) -> "Kept":
        kept, storage = Kept(tensor), tensor.untyped_storage()
        self.add(storage.data_ptr(), storage.nbytes(), 1)
        weakref.finalize(kept, self.add, storage.data_ptr(), storage.nbytes(), -1)
        return kept

    def add(self, address: int, size: int, count: int) -> None:
        before = self.kept.get(address, 0)
        self.kept[address] = before + count
        if not before or not before + count:
            self.bytes += count * size
        self.peak = max(self.peak, self.bytes)


class Kept:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_at_stages(network, task, batch, progress, **options) -> tuple[list[int], int]:
    """What graphs keep where each stage starts, weights left out, and at most."""
    method = offline("lakd", network, task, **options).train()
    weights = {p.untyped_storage().data_ptr() for p in method.parameters()}
    saved, starts = SavedBytes(), []
    pack = saved.pack
    saved.hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda t: Kept(t) if t.untyped_storage().data_ptr() in weights else pack(t),
        lambda kept: kept.tensor,
    )
    for name in STAGES:
        stage = method.student.network.get_submodule(name)
        stage.register_forward_pre_hook(lambda *_: starts.append(saved.bytes))
    with saved.hooks:
        step = method(batch, progress)
    step.total.backward()
    del step
    assert saved.bytes == 0
    return starts, saved.peak


def test_activations_of_a_module_are_freed_before_the_next_one_starts(
    tiny_net, tiny_task, batch, progress
):
    joint, joint_peak = kept_at_stages(
        copy.deepcopy(tiny_net), tiny_task, batch, progress, local_backward=False
    )
    local, local_peak = kept_at_stages(tiny_net, tiny_task, batch, progress)
    sizes = [sum(4 * p.numel() for p in tiny_net.get_submodule(n).parameters()) for n in STAGES]
    heads = [4 * 5 * (channels + 1) for channels in (8, 8, 12)]
    gradients = np.cumsum([s + h for s, h in zip(sizes, heads, strict=False)])
    assert local == [0, *gradients]  # to the byte
    first_map = batch.inputs.numel() // 3 * 8 * 4
    assert joint[1] > first_map
    assert local_peak < 0.8 * joint_peak  # of so small a network gradients are the larger part


def test_without_gradients_it_only_computes(tiny_net, tiny_task, batch, progress):
    method = offline("lakd", tiny_net, tiny_task)
    with torch.no_grad():
        off = method(batch, progress)
    on = method(batch, progress)
    for name, loss in on.losses.items():
        assert torch.equal(off.losses[name], loss)
        assert loss.requires_grad
        assert not off.losses[name].requires_grad


# torch's compiler hides this warning of its own, but not from the suite
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.slow
def test_compiled_gradients_are_the_same(tiny_net, tiny_task, batch, progress):
    torch._dynamo.reset()
    method = offline("lakd", tiny_net, tiny_task).train()
    plain = copy.deepcopy(method)
    method.compile(backend="eager")
    got, want = (stepped(each, batch, progress) for each in (method, plain))
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, msg=name)


@pytest.mark.parametrize("step", [0, 99, 199, 399, 900])
def test_weights_grow_from_shallow_to_deep(tiny_net, tiny_task, batch, progress, step):
    progress = progress._replace(step=torch.tensor(step))
    plain, warm = (
        offline("lakd", tiny_net, tiny_task, warmup_fraction=fraction)(batch, progress).losses
        for fraction in (0.0, 0.4)
    )
    # module k of 4 has its full weight after k/4 of 400 steps
    weights = {f"local/{k}": min(1.0, (step + 1) / (100 * k)) for k in (1, 2, 3)}
    for name in plain:
        weight = weights.get(name, min(1.0, (step + 1) / 400))
        assert warm[name].item() == pytest.approx(weight * plain[name].item(), rel=1e-5), name


def test_local_heads_stay_as_exits(tiny_net, tiny_task, batch, progress):
    method = offline("lakd", tiny_net, tiny_task)
    networks, step = method.predictors(), method(batch, progress)
    assert list(networks) == ["exit1", "exit2", "exit3", "student"]
    assert networks["student"] is tiny_net
    for k in (1, 2, 3):
        loss = F.cross_entropy(networks[f"exit{k}"](batch.inputs), batch.targets)
        torch.testing.assert_close(step.monitors[f"task/{k}"], loss.detach())
    bare = offline("lakd", tiny_net, tiny_task, supervised_weight=0.0)
    assert list(bare.predictors()) == ["student"]
    assert not list(bare.exits.parameters())


def test_a_teachers_classes_matter_only_for_the_soft_loss(tiny_net, tiny_task):
    assert offline("lakd", tiny_net, tiny_task).needs.teacher_scores
    assert not offline("lakd", tiny_net, tiny_task, soft_weight=0.0).needs.teacher_scores


class Around(nn.Module):
    """The input is added behind the first tap."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1, self.stage2 = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.stage2(self.stage1(x) + x).mean((2, 3))


def test_a_network_that_cannot_be_cut(tiny_task):
    with pytest.raises(ConfigError, match=r"cannot be cut into stages \(a connection leads around"):
        offline("lakd", Around(), tiny_task, taps=STAGES[:2], teacher_taps=STAGES[:2])


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"attention_weight": 0.0, "supervised_weight": 0.0}, "local modules need a loss"),
        ({"warmup_fraction": 1.5}, "between 0 and 1, not 1.5"),
        ({"taps": STAGES[1:]}, "student has 3 taps and teacher 4"),
        ({"taps": STAGES[:1], "teacher_taps": STAGES[:1]}, "two taps or more, not 1"),
        ({"taps": ["pool"], "teacher_taps": ["stage4"]}, "single cell"),
    ],
)
def test_what_is_refused(tiny_net, tiny_task, options, fault):
    with pytest.raises(ConfigError, match=fault):
        offline("lakd", tiny_net, tiny_task, **options)
