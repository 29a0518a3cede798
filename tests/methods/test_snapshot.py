"""Snapshot distillation: golden values, when the teacher changes, and exact resumes."""

import copy
import signal

import numpy as np
import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import nn

from selfdistill.core import METHODS, ConfigError, Progress, options, trained_state
from selfdistill.data import InMemoryImages, Loader
from selfdistill.engine import checkpoint
from selfdistill.engine.callback import Callback
from selfdistill.engine.optimizer import learning_rate
from selfdistill.engine.run_directory import RunDirectory
from selfdistill.engine.settings import TrainingSettings
from selfdistill.engine.trainer import Trainer
from selfdistill.methods.snapshot import asymmetric_cross_entropy
from selfdistill.signals import Interrupted
from selfdistill.tasks import Classification

STUDENT = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
TEACHER = torch.tensor([[3.0, 1.0, 0.0], [2.0, -1.0, 0.0]])


def snapshot(net, task, **keywords):
    return METHODS["snapshot"](net, task, **keywords)


def moment(step: int, total: int = 10) -> Progress:
    return Progress(*(torch.tensor(n) for n in (0, 0, step, total)))


def taught(net, task, **keywords):
    """A method in its second generation, whose student is no longer its teacher."""
    method = snapshot(net, task, **keywords)
    method.after_step(moment(4))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_golden_value():
    value = asymmetric_cross_entropy(STUDENT, TEACHER, 2.0)
    assert value.item() == pytest.approx(1.497253, abs=1e-6)


def test_gradient_is_the_difference_of_the_distributions():
    outputs = STUDENT.clone().requires_grad_()
    asymmetric_cross_entropy(outputs, TEACHER, 2.0).backward()
    want = (STUDENT.softmax(1) - (TEACHER / 2).softmax(1)) / 2  # no τ, and the mean over two
    torch.testing.assert_close(outputs.grad, want)


def test_dense_outputs_are_a_batch_of_positions():
    torch.manual_seed(0)
    outputs, reference = torch.randn(2, 3, 4, 5, 6)
    as_rows = (x.movedim(1, -1).flatten(0, -2) for x in (outputs, reference))
    dense = asymmetric_cross_entropy(outputs, reference, 3.0)
    torch.testing.assert_close(dense, asymmetric_cross_entropy(*as_rows, 3.0))


def test_void_pixels_are_left_out():
    torch.manual_seed(0)
    outputs, reference = torch.randn(2, 2, 3, 4, 4)
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, :4] = True  # the upper half, at twice the size of the outputs
    masked = asymmetric_cross_entropy(outputs, reference, 3.0, mask)
    upper = asymmetric_cross_entropy(outputs[:, :, :2], reference[:, :, :2], 3.0)
    torch.testing.assert_close(masked, upper)


def test_the_first_generation_is_plain_training(tiny_net, tiny_task, batch, progress):
    method = snapshot(tiny_net, tiny_task)
    calls = []
    method.teacher.register_forward_hook(lambda *a: calls.append(1))
    step = method(batch, progress)
    assert not calls
    assert step.losses["soft"] == 0
    plain = F.cross_entropy(step.outputs, batch.targets)
    torch.testing.assert_close(step.total, plain)


def numbers(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_later_generations_equal_numpy(temperature, tiny_net, tiny_task, batch):
    method = taught(tiny_net, tiny_task, temperature=temperature).eval()
    losses = method(batch, moment(5)).losses
    with torch.no_grad():
        student, teacher = numbers(tiny_net(batch.inputs)), numbers(method.teacher(batch.inputs))
    assert np.abs(student - teacher).max() > 0.1
    log_probabilities = log_softmax(student)
    target = np.exp(log_softmax(teacher / temperature))
    task = -log_probabilities[range(len(log_probabilities)), batch.targets].mean() * (
        1 + 1 / temperature
    )
    assert losses["task"].item() == pytest.approx(task, rel=1e-5)
    assert losses["soft"].item() == pytest.approx(
        -(target * log_probabilities).sum(1).mean(), rel=1e-5
    )


def test_without_soft_and_at_weight_one_it_is_plain_cross_entropy(tiny_net, tiny_task, batch):
    step = taught(tiny_net, tiny_task, soft_weight=0.0, supervised_weight=1.0)(batch, moment(5))
    torch.testing.assert_close(step.total, F.cross_entropy(step.outputs, batch.targets))


def test_teacher_is_the_student_at_the_end_of_each_generation(tiny_net, tiny_task, batch):
    method = snapshot(tiny_net, tiny_task, num_generations=3)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1)
    generations = []
    for i in range(10):
        before = copy.deepcopy(method.teacher)
        optimizer.zero_grad()
        method(batch, moment(i)).total.backward()
        optimizer.step()
        method.after_step(moment(i))
        if same(method.teacher.network, tiny_net):
            generations.append(i)
        else:
            assert same(before, method.teacher)
    assert generations == [3, 6]  # 4, 3 and 3 steps; what the last generation became teaches nobody


def test_one_generation_never_ends(tiny_net, tiny_task):
    method = snapshot(tiny_net, tiny_task, num_generations=1)
    for i in range(10):
        method.after_step(moment(i))
    assert not method.has_teacher


def test_more_generations_than_steps(tiny_net, tiny_task):
    method = snapshot(tiny_net, tiny_task, num_generations=25)
    for i in range(9):
        method.after_step(moment(i))
        assert method.generation == (i + 1) * 25 // 10
    method.after_step(moment(9))
    assert method.generation == 22


def test_a_run_of_unknown_length_stays_in_the_first_generation(tiny_net, tiny_task):
    method = snapshot(tiny_net, tiny_task, num_generations=1000)
    for step in (0, 10**6, 10**12):
        method.after_step(moment(step, 1 << 60))
    assert not method.has_teacher


@pytest.mark.parametrize(("generations", "epochs", "spe"), [(2, 4, 5), (3, 4, 5), (4, 7, 3)])
def test_the_rate_starts_anew_right_after_a_snapshot(generations, epochs, spe, tiny_net, tiny_task):
    method = snapshot(tiny_net, tiny_task, num_generations=generations)
    settings = TrainingSettings(epochs=epochs, lr=0.3, lr_schedule="cosine")
    total, changes = epochs * spe, []
    rates = [learning_rate(settings, step, spe, method.cycles) for step in range(total)]
    starts = [step for step, rate in enumerate(rates) if rate == settings.lr]
    for step in range(total):
        before = int(method.generation)
        method.after_step(moment(step, total))
        if method.generation > before:
            changes.append(step + 1)
    assert starts == [0, *changes]
    assert len(changes) == generations - 1


def test_teacher_neither_trains_nor_moves_its_statistics(tiny_net, tiny_task, batch):
    method = taught(tiny_net, tiny_task).train()
    before = copy.deepcopy(method.teacher)
    method(batch, moment(5)).total.backward()
    assert same(before, method.teacher)
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    assert not any(m.training for m in method.teacher.network.modules())
    assert tiny_net.training
    assert all(p.requires_grad and p.grad.abs().sum() > 0 for p in tiny_net.parameters())


def test_terms_have_the_same_names_in_all_generations(tiny_net, tiny_task, batch):
    method = snapshot(tiny_net, tiny_task)
    first = method(batch, moment(0))
    method.after_step(moment(4))
    assert method(batch, moment(5)).losses.keys() == first.losses.keys() == {"task", "soft"}


def test_hooks_on_the_student_do_not_hear_the_teacher(tiny_net, tiny_task, batch):
    heard = []
    tiny_net.stage2.register_forward_hook(lambda *a: heard.append("before"))
    method = taught(tiny_net, tiny_task)
    tiny_net.stage3.register_forward_hook(lambda *a: heard.append("after"))
    method(batch, moment(5))
    assert heard == ["before", "after"]


def test_state_carries_the_teacher_and_the_generation(tiny_net, tiny_task, batch):
    method = taught(tiny_net, tiny_task)
    state = {name: value.clone() for name, value in trained_state(method).items()}
    other = snapshot(copy.deepcopy(tiny_net), tiny_task)
    assert not any(other.load_state_dict(state, strict=False))
    assert other.has_teacher
    first, second = (m(batch, moment(5)).losses for m in (method, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    fresh = snapshot(copy.deepcopy(tiny_net), tiny_task)
    other.load_state_dict(fresh.state_dict())
    assert not other.has_teacher


def test_state_is_found_inside_another_module(tiny_net, tiny_task):
    method = taught(tiny_net, tiny_task)
    outer = nn.ModuleDict({"inner": snapshot(copy.deepcopy(tiny_net), tiny_task)})
    outer.load_state_dict({f"inner.{k}": v for k, v in method.state_dict().items()})
    assert outer["inner"].has_teacher


def test_copies_go_their_own_ways(tiny_net, tiny_task):
    method = taught(tiny_net, tiny_task)
    twin, fresh = copy.deepcopy(method), snapshot(copy.deepcopy(tiny_net), tiny_task)
    twin.load_state_dict(fresh.state_dict())
    assert (method.has_teacher, twin.has_teacher) == (True, False)


def test_later_generations_never_wait_for_the_device(tiny_net, tiny_task, batch):
    method = taught(tiny_net, tiny_task).to("meta")
    on_meta = batch._replace(inputs=batch.inputs.to("meta"), targets=batch.targets.to("meta"))
    step = method(on_meta, Progress(*(t.to("meta") for t in moment(5))))
    assert all(loss.is_meta for loss in step.losses.values())


def test_later_generations_agree_in_bf16(tiny_net, tiny_task, batch):
    method = taught(tiny_net, tiny_task)
    full = method(batch, moment(5)).losses
    with torch.autocast("cpu", torch.bfloat16):
        half = method(batch, moment(5)).losses
    for name in full:  # eight bits of mantissa
        torch.testing.assert_close(half[name], full[name], rtol=0.05, atol=0.02)


@pytest.mark.slow
def test_a_later_generation_compiles_once(tiny_net, tiny_task, batch):
    torch._dynamo.reset()
    method = taught(tiny_net, tiny_task)
    want = method(batch, moment(5))
    method.compile(backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        torch.testing.assert_close(method(batch, moment(5)).losses, want.losses)
        method.after_step(moment(4))  # another teacher
        assert method(batch, moment(5)).losses["soft"] != want.losses["soft"]


def test_wrong_options_in_a_sentence(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="generations=0 leaves nothing"):
        snapshot(tiny_net, tiny_task, num_generations=0)
    with pytest.raises(ConfigError, match="temperature=0 must be above 0"):
        snapshot(tiny_net, tiny_task, temperature=0.0)


def test_defaults(tiny_net, tiny_task):
    defaults = {o.name: o.default for o in options(METHODS["snapshot"]).values()}
    assert defaults == {
        "num_generations": 2,
        "supervised_weight": None,
        "soft_weight": 1.0,
        "temperature": 2.0,
    }
    method = snapshot(tiny_net, tiny_task)
    assert (method.supervised_weight, method.cycles) == (1.5, 2)


# Runs of the engine: two epochs of three steps in four generations, which end within epochs.
class Stops(Callback):
    """A display that asks the run to stop after a step."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step(self, step: int, total_steps: int) -> None:
        self.fit.signals.signal_number = signal.SIGTERM if step == self.after else 0


def run(out, stop: int = 0, **settings) -> checkpoint.Checkpoint:
    """Train on in a directory to the end or to a step; the checkpoint that is left."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8)
    images = InMemoryImages(pixels, torch.arange(24) % 3)
    train = Loader(
        images, batch_size=8, seed=0, mean=(0.5,) * 3, std=(0.3,) * 3, crop_padding=1, flip=True
    )
    task = Classification("abc", torch.zeros(2, 3, 8, 8))
    conv = nn.Conv2d(3, 6, 3, 2, 1, bias=False)
    net = nn.Sequential(conv, nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3))
    method = snapshot(net, task, num_generations=4)
    directory = RunDirectory(out)
    directory.checkpoints.mkdir(parents=True, exist_ok=True)
    display = Stops(stop)
    fabric, settings = Fabric(accelerator="cpu", devices=1), TrainingSettings(epochs=2, **settings)
    display.fit = Trainer(fabric, method, task, train, None, settings, directory, display)
    if 0 < stop < 6:
        with pytest.raises(Interrupted):
            display.fit.run()
    else:
        display.fit.run()
    return checkpoint.newest(directory.checkpoints)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_resume_is_exact_at_every_step(tmp_path, monkeypatch, ema_decay):
    monkeypatch.setattr("os.fsync", lambda handle: None)
    want = run(tmp_path / "straight", ema_decay=ema_decay)
    assert any(name.startswith("teacher.") for name in want.tensors["method"])
    for stop in range(1, 6):
        first = run(tmp_path / str(stop), stop, ema_decay=ema_decay)
        assert first.state["step"] == stop
        assert first.tensors["method"]["generation"] == stop * 4 // 6
        resumed = run(tmp_path / str(stop), ema_decay=ema_decay)
        assert resumed.state == want.state
        for stem, tensors in want.tensors.items():
            assert tensors.keys() == resumed.tensors[stem].keys()
            for name, value in tensors.items():
                assert torch.equal(value, resumed.tensors[stem][name]), f"{stop} {stem}: {name}"
