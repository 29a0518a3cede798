"""A step that is not finite, told a step later with an optimizer that heeds the flag."""

import pytest
import torch
from engine_runs import Calls, assert_same_run, final, make, network
from torch import distributed, nn
from torch.amp import GradScaler

from selfdistill.core import DivergenceError, Method, StepOutput
from selfdistill.engine import processes
from selfdistill.engine import trainer as trainer_module
from selfdistill.engine.finite_check import FiniteCheck, Passes
from selfdistill.engine.host_copy import HostCopy
from selfdistill.engine.optimizer import build_optimizer, init_momentum, is_fused
from selfdistill.engine.processes import ProcessMax
from selfdistill.engine.settings import TrainingSettings


class Late(Method):
    """A second head that learns from step 2 on, and a term that goes wrong at a step."""

    def __init__(self, fault: str = "", at: int = 3):
        super().__init__()
        self.student, self.second = network("group"), nn.Linear(3, 3)
        self.fault, self.at = fault, at

    def forward(self, batch, progress):
        out = self.student(batch.inputs)
        losses = {"good": out.square().mean()}
        if progress.step >= 2:
            losses["late"] = self.second(out).square().mean()
        bad = out.abs().mean()
        if progress.step == self.at and self.fault == "loss":
            bad = bad * torch.nan
        if progress.step == self.at and self.fault == "gradient":
            bad = (bad * 0).sqrt()
        return StepOutput(out, losses | {"bad": bad})


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Trainers with fused optimizers, whose flag is read a step later."""

    def fused(*args, **keys):
        return build_optimizer(*args, **{**keys, "fused": True})

    monkeypatch.setattr(trainer_module, "build_optimizer", fused)

    def trainer(*args, **keys):
        made = make(*args, **keys)
        assert is_fused(made.optimizer.optimizer)
        made.finite.deferred = True
        return made

    return trainer


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("fault", ["loss", "gradient"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_the_optimizer_leaves_out_the_step_that_is_told_later(
    as_on_a_gpu, tmp_path, optimizer, fault, clip
):
    method, recorded = Late(fault), []

    def note(step):
        recorded.append([p.detach().clone() for p in method.parameters()])

    keys = {"optimizer": optimizer, "clip_grad_norm": clip, "log_every_steps": 100, "epochs": 3}
    trainer = as_on_a_gpu(tmp_path, method=method, callback=Calls(note), **keys)
    with pytest.raises(DivergenceError, match=rf"{fault}.*\bbad\b.*at step 3; step 3 is saved"):
        trainer.run()
    assert len(recorded) == 4  # the host had gone on
    # neither the step itself nor the one in which it is told
    for now, before in zip(method.parameters(), recorded[2], strict=True):
        assert torch.equal(now, before)
    assert final(tmp_path).state["step"] == 3


@pytest.mark.parametrize("at", [1, 2, 5])
def test_nothing_of_a_step_that_is_not_finite_is_written(as_on_a_gpu, tmp_path, at):
    """Logged steps, checkpoints, ends of epochs and of the run read the flag first."""
    trainer = as_on_a_gpu(tmp_path, method=Late("loss", at), log_every_steps=2)
    with pytest.raises(DivergenceError, match=f"at step {at}"):
        trainer.run()
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    if at == 5:
        assert final(tmp_path).state["step"] == 3
    else:
        assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fused_runs_are_as_others_and_go_on_exactly(as_on_a_gpu, tmp_path, optimizer):
    make(tmp_path / "plain", method=Late(), optimizer=optimizer, lr=0.01).run()
    keys = {"optimizer": optimizer, "lr": 0.01, "save_every_steps": 1}
    as_on_a_gpu(tmp_path / "straight", method=Late(), **keys).run()

    class Stop(Exception):
        pass

    def stop(step):
        if step == 5:
            raise Stop

    with pytest.raises(Stop):
        as_on_a_gpu(tmp_path / "cut", method=Late(), callback=Calls(stop), **keys).run()
    assert final(tmp_path / "cut").state["step"] == 4
    as_on_a_gpu(tmp_path / "cut", method=Late(), **keys).run()
    assert_same_run(tmp_path / "straight", tmp_path / "cut")
    plain, fused = (final(tmp_path / name).tensors["method"] for name in ("plain", "straight"))
    for name, tensor in plain.items():
        torch.testing.assert_close(fused[name], tensor, rtol=1e-4, atol=1e-6)


def test_kernels_are_fused_where_fabric_can_have_them():
    def fused(**keys):
        return is_fused(build_optimizer(Late(), TrainingSettings(**keys), fused=True))

    assert fused()
    assert fused(optimizer="adamw", precision="bf16", clip_grad_norm=1.0)
    assert fused(precision="fp16")
    assert not fused(precision="fp16", clip_grad_norm=1.0)
    assert not is_fused(build_optimizer(Late(), TrainingSettings()))


@pytest.mark.parametrize("keys", [{"momentum": 0.0}, {"optimizer": "adamw"}])
def test_only_momentum_begins_at_zero(keys):
    optimizer = build_optimizer(Late(), TrainingSettings(**keys), fused=True)
    init_momentum(optimizer)
    assert not optimizer.state


def test_a_copy_is_of_its_moment():
    flag = torch.tensor(True)
    copy = HostCopy(flag)
    flag.fill_(False)
    assert copy.read() == 1.0


def test_processes_are_told_at_the_next_call(monkeypatch):
    class Two:
        world_size, device = 2, torch.device("cpu")

    others = iter([0, 15, 0])

    def all_reduce(tensor, op):
        assert op == distributed.ReduceOp.MAX
        tensor.fill_(max(int(tensor), next(others)))

    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    agree = ProcessMax(Two(), deferred=True)
    assert [agree(0), agree(2), agree(0)] == [0, 0, 15]
    monkeypatch.setattr(processes, "process_max", lambda fabric, value: value + 1)
    assert ProcessMax(Two(), deferred=False)(4) == 5


def test_gradients_that_fp16_never_holds_end_the_run():
    """The scaler skips each step and halves its scale, until nothing is left of it."""
    method = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    scaler = GradScaler("cpu")
    check = FiniteCheck(method, optimizer, lambda: 7, deferred=False, scaler=scaler)
    before = method.weight.detach().clone()

    def steps(number, factor):
        for step in range(number):
            loss = method(torch.ones(3, 2)).mean()
            scaler.scale(loss).backward()
            for parameter in method.parameters():
                parameter.grad.mul_(factor)
            check.check(Passes(step, (), (), None), loss)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        check.finish()

    steps(30, torch.nan)  # which a healthy run may see
    assert torch.equal(method.weight, before)
    steps(1, 1.0)
    assert not torch.equal(method.weight, before)
    with pytest.raises(DivergenceError, match=r"infinite in fp16 for many steps.*step 7 is saved"):
        steps(8, torch.nan)


def test_the_norm_is_that_of_the_gradients_and_not_of_scaled_ones():
    method = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    scaler = GradScaler("cpu", init_scale=2.0**13)
    scaler.scale(method(torch.ones(3, 2)).mean()).backward()
    norm = nn.utils.get_total_norm([p.grad for p in method.parameters()])
    check = FiniteCheck(method, optimizer, lambda: None, deferred=True, scaler=scaler)
    assert check.unscaled(norm).item() == pytest.approx(3**0.5)
    check = FiniteCheck(method, optimizer, lambda: None, deferred=True)
    assert check.unscaled(norm) is norm
