"""A run that was stopped anywhere and goes on equals, bit for bit, one that was never stopped."""

import itertools
import os
import signal

import pytest
import torch
from engine_runs import STEPS, Calls, assert_same_run, final, lines, make

from selfdistill.core import METHODS, ArtifactError
from selfdistill.engine import checkpoint, processes
from selfdistill.recipe.build_method import unsupported_reason
from selfdistill.signals import Interrupted
from selfdistill.tasks import Classification

RUNS = {
    "muse": {"name": "muse", "options": {"negatives": "roll"}},
    "muse, product": {"name": "muse", "options": {"combine": "mul"}, "save_every_steps": 1},
    "byot": {"name": "byot"},
    "exits": {"name": "exits", "save_every_steps": 2},
    "joined": {"name": "muse+cskd+snapshot", "save_every_steps": 1, "ema_decay": 0.5},
    "joined, taught": {"name": "muse+crd+kd"},
    "ce, dropout": {"name": "ce", "net": {"dropout": 0.5}},
    "ce, average": {"name": "ce", "ema_decay": 0.9, "save_every_steps": 2},
    "pskd, average": {"name": "pskd", "ema_decay": 0.9},
    "ce, adamw": {"name": "ce", "optimizer": "adamw", "lr": 1e-3, "save_every_steps": 1},
    "ce, clip and warm-up": {"name": "ce", "clip_grad_norm": 0.1, "warmup_epochs": 1.0},
    "all": {"name": "muse", "options": {"negatives": "roll"}, "net": {"dropout": 0.3},
            "ema_decay": 0.9, "optimizer": "adamw", "lr": 1e-3, "save_every_steps": 1,
            "log_every_steps": 1},
}  # fmt: skip
every_run = pytest.mark.parametrize("keys", RUNS.values(), ids=RUNS)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Processes die here, machines do not."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Runs that were never stopped, made once each."""
    runs = {}

    def run(keys):
        if str(keys) not in runs:
            runs[str(keys)] = tmp_path_factory.mktemp("straight")
            make(runs[str(keys)], **keys).run()
        return runs[str(keys)]

    return run


def speed(name: str, stop: int) -> list[pytest.MarkDecorator]:
    """The fast half has all settings at once after every step, and others after one."""
    return [] if name == "all" or stop == STEPS + 1 else [pytest.mark.slow]


@pytest.mark.parametrize(
    ("keys", "stop"),
    [
        pytest.param(keys, stop, id=f"{stop}-{name}", marks=speed(name, stop))
        for name, keys in RUNS.items()
        for stop in range(1, 2 * STEPS + 1)
    ],
)
def test_stopped_by_a_signal_after_any_step(tmp_path, straight, keys, stop):
    trainer = make(tmp_path, **keys)

    def ask(step):
        trainer.signals.signal_number = signal.SIGTERM if step == stop else 0

    trainer.callback = Calls(ask)
    with pytest.raises(Interrupted):
        trainer.run()
    assert final(tmp_path).state["step"] == stop
    make(tmp_path, **keys).run()
    assert_same_run(tmp_path, straight(keys))


SERVED = [
    name
    for name in METHODS
    if not unsupported_reason(METHODS[name], Classification)
    and not METHODS[name].needs.distillation_token  # tests/runs/test_distillation_token.py
]


@pytest.mark.parametrize("name", SERVED)
def test_every_method_goes_on_from_the_middle_of_an_epoch(tmp_path, straight, name):
    test_stopped_by_a_signal_after_any_step(tmp_path, straight, {"name": name}, STEPS + 1)


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


def kill_at(trainer, monkeypatch, event: int) -> None:
    """Raise at the `event`-th of: a step done, a line logged, a checkpoint begun or renamed."""
    count = 0

    def tick():
        nonlocal count
        count += 1
        if count == event:
            raise Killed

    def around(function):
        def run(*args, **kwargs):
            tick()
            result = function(*args, **kwargs)
            tick()
            return result

        return run

    trainer.callback = Calls(lambda step: tick())
    trainer.directory.log = around(trainer.directory.log)
    monkeypatch.setattr(checkpoint, "save", around(checkpoint.save))


def finishes(out, monkeypatch, event: int, keys) -> bool:
    """Whether the run comes to its end before the `event`-th event kills it."""
    with monkeypatch.context() as patch:
        trainer = make(out, **keys)
        kill_at(trainer, patch, event)
        try:
            trainer.run()
        except Killed:
            return False
    return True


def killed_everywhere(tmp_path, monkeypatch, want, keys):
    """Kill a run at its n-th event and let it go on, for each n; and one run again and again."""
    for event in itertools.count(1):
        out = tmp_path / str(event)
        if finishes(out, monkeypatch, event, keys):
            break
        make(out, **keys).run()
        assert_same_run(out, want)
    assert event > 10
    chain = tmp_path / "chain"
    assert any(finishes(chain, monkeypatch, n, keys) for n in itertools.count(1))
    assert_same_run(chain, want)


KILLED = {
    "epochs": {"name": "ce", "log_every_steps": 2},
    "every step": {"name": "ce", "log_every_steps": 1, "save_every_steps": 1},
    "every second step": {"name": "ce", "log_every_steps": 2, "save_every_steps": 2},
    "every third step": {"name": "muse", "log_every_steps": 1, "save_every_steps": 3},
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "epochs" else pytest.mark.slow) for n in KILLED],
)
def test_killed_at_any_event(tmp_path, monkeypatch, straight, name):
    killed_everywhere(tmp_path, monkeypatch, straight(KILLED[name]), KILLED[name])


@pytest.mark.slow
@every_run
def test_every_run_killed_at_any_event(tmp_path, monkeypatch, straight, keys):
    killed_everywhere(tmp_path, monkeypatch, straight(keys), keys)


def test_goes_on_from_the_one_before_a_corrupt_checkpoint(tmp_path, straight):
    keys = RUNS["all"]
    trainer = make(tmp_path, **keys)
    trainer.callback = Calls(
        lambda step: setattr(trainer.signals, "signal_number", signal.SIGTERM if step == 5 else 0)
    )
    with pytest.raises(Interrupted):
        trainer.run()
    broken = tmp_path / "checkpoints" / "step-000005" / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1] + b"\xff")
    with pytest.warns(UserWarning, match="step-000004 is used instead"):
        make(tmp_path, **keys).run()
    assert_same_run(tmp_path, straight(keys))


def test_resuming_a_finished_run_changes_nothing(tmp_path, straight):
    keys = RUNS["muse"]
    make(tmp_path, **keys).run()
    make(tmp_path, **keys).run()
    assert_same_run(tmp_path, straight(keys))


def test_checkpoint_of_another_network_is_refused_in_a_sentence(tmp_path):
    make(tmp_path, "exits").run()
    with pytest.raises(ArtifactError, match="does not fit"):
        make(tmp_path, "ce").run()


def test_seed_of_a_step_does_not_hang_on_what_ran_before(tmp_path):
    keys = {"name": "ce", "net": {"dropout": 0.5}}
    for out, seed in (("a", 1), ("b", 2)):
        trainer = make(tmp_path / out, **keys)
        torch.manual_seed(seed)
        trainer.run()
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_lines_are_in_order_and_single(tmp_path):
    keys = KILLED["every step"]
    make(tmp_path, **keys).run()
    steps_and_kinds = [(e["step"], e["kind"]) for e in lines(tmp_path)]
    assert len(set(steps_and_kinds)) == len(steps_and_kinds)
    assert [step for step, _ in steps_and_kinds] == sorted(step for step, _ in steps_and_kinds)


@pytest.mark.parametrize("group", ["model", "method", "optimizer", "ema"])
@pytest.mark.parametrize("change", ["missing", "shape", "name"])
def test_a_checkpoint_of_other_tensors_is_refused_in_a_sentence(tmp_path, group, change):
    make(tmp_path, "exits", ema_decay=0.9).run()
    saved = final(tmp_path)
    tensors = saved.tensors[group]
    name = max(tensors, key=lambda each: tensors[each].numel())
    if change == "missing":
        del saved.tensors[group]
    elif change == "shape":
        tensors[name] = torch.zeros(5, 5)
    else:
        tensors["other/slot"] = tensors.pop(name)
    checkpoint.save(tmp_path / "checkpoints", saved)
    with pytest.raises(ArtifactError, match=r"does not fit this method|of another run"):
        make(tmp_path, "exits", ema_decay=0.9).run()


@pytest.mark.parametrize("scaler", [{"scale": 3}, {"growth_factor": None}])
def test_a_scaler_of_another_precision_is_refused(tmp_path, scaler):
    make(tmp_path).run()
    trainer, saved = make(tmp_path), final(tmp_path)
    other = saved._replace(state=saved.state | {"scaler": scaler})
    checkpoint.save(tmp_path / "checkpoints", other)

    def load_state_dict(state):
        raise KeyError("scale")

    trainer.fabric.strategy.precision.load_state_dict = load_state_dict
    with pytest.raises(ArtifactError, match="scaler cannot be read"):
        trainer.run()


def test_a_signal_that_comes_while_the_processes_agree_is_not_lost(tmp_path, monkeypatch):
    trainer = make(tmp_path)

    def agree(fabric, value):
        trainer.signals.signal_number = signal.SIGTERM
        return value

    monkeypatch.setattr(processes, "process_max", agree)
    with pytest.raises(Interrupted, match="SIGTERM"):
        trainer.run()
    assert final(tmp_path).state["step"] == 2
