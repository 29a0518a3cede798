"""The training loop: divergence, accumulation, clipping, averaging, and how a run is stopped."""

import json
import os
import signal

import pytest
import torch
from engine_runs import STEPS, Calls, Slice, final, images, lines, make, network, task
from torch import nn

from selfdistill.core import DivergenceError, Method, StepOutput
from selfdistill.engine import throughput
from selfdistill.engine.callback import Callback
from selfdistill.recipe.build_method import build_method
from selfdistill.signals import Interrupted


class Terms(Method):
    """Two terms; from step 2 on, one of them goes wrong in the loss or in its gradient."""

    def __init__(self, fault: str):
        super().__init__()
        self.student, self.fault = network("group"), fault

    def forward(self, batch, progress):
        out = self.student(batch.inputs)
        good, bad = out.square().mean(), out.abs().mean()
        if progress.step >= 2 and self.fault == "loss":
            bad = bad * torch.inf
        elif progress.step >= 2 and self.fault == "gradient":
            bad = (bad * 0).sqrt()  # finite, and its slope is not
        return StepOutput(out, {"good": good, "bad": bad})


@pytest.mark.parametrize("fault", ["loss", "gradient"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_divergence_names_the_term_and_moves_no_weight(tmp_path, fault, clip):
    method, recorded = Terms(fault), []

    def note(step):
        recorded.append({n: p.detach().clone() for n, p in method.named_parameters()})

    trainer = make(tmp_path, method=method, clip_grad_norm=clip, callback=Calls(note))
    with pytest.raises(DivergenceError, match=rf"{fault}.*\bbad\b.*at step 2") as raised:
        trainer.run()
    assert "good" not in str(raised.value)
    assert "--lr" in str(raised.value)
    assert raised.value.exit_code == 5
    assert len(recorded) == 2
    assert all(torch.equal(p, recorded[-1][n]) for n, p in method.named_parameters())


class Remembers(Terms):
    """Keeps what `after_step` is told."""

    def after_step(self, progress):
        self.told = [*getattr(self, "told", ()), progress]


def test_the_progress_of_a_finished_step_is_on_the_host(tmp_path):
    trainer = make(tmp_path, method=Remembers(fault=""))
    trainer.run()
    told = trainer.method.told
    assert [int(progress.step) for progress in told] == list(range(trainer.total_steps))
    assert {number.device.type for progress in told for number in progress} == {"cpu"}


def test_the_throughput_is_of_the_steps_alone(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])

    class Slow(Callback):
        """Takes a day at the end of each epoch."""

        def on_epoch(self, entry):
            now[0] += 86_400

    class Steps(Terms):
        """Takes a second for each step."""

        def after_step(self, progress):
            now[0] += 1

    trainer = make(tmp_path, method=Steps(fault=""), callback=Slow(), log_every_steps=1)
    trainer.run()
    steps = [entry for entry in trainer.directory.metrics() if entry["kind"] == "step"]
    rates = [entry["images_per_second"] for entry in steps]
    assert trainer.total_steps > trainer.train_batches.steps_per_epoch  # there is a second epoch
    assert len(rates) == trainer.total_steps
    assert set(rates) == {rates[0]}
    assert rates[0] > 1


class Overflows(Method):
    """A buffer that is infinite from step 2 on, which no loss and no gradient shows."""

    def __init__(self):
        super().__init__()
        self.student = network("group")
        self.register_buffer("statistics", torch.zeros(3))

    def forward(self, batch, progress):
        logits = self.student(batch.inputs)
        return StepOutput(logits, {"task": task().loss(logits, batch.targets)})

    def after_step(self, progress):
        self.statistics += torch.where(progress.step >= 1, torch.inf, 0.0)


@pytest.mark.parametrize(("save_every", "left"), [(1, "step 1 is saved"), (0, "no checkpoint was")])
def test_what_is_not_finite_is_never_saved(tmp_path, save_every, left):
    trainer = make(tmp_path, method=Overflows(), save_every_steps=save_every)
    with pytest.raises(DivergenceError, match=rf"statistics is no .*; {left}.*start a new run"):
        trainer.run()
    names = [path.name for path in trainer.directory.checkpoints.iterdir()]
    assert names == ["step-000001"] * save_every


def test_divergence_in_the_first_part_of_an_accumulated_step_is_named(tmp_path):
    class First(Terms):
        calls = 0

        def forward(self, batch, progress):
            self.calls += 1
            step = super().forward(batch, progress)
            wrong = torch.inf if self.calls == 1 else 0.0
            return StepOutput(step.outputs, step.losses | {"bad": step.losses["bad"] * (1 + wrong)})

    with pytest.raises(DivergenceError, match=r"\bbad\b"):
        make(tmp_path, method=First("none"), train=Slice(parts=2)).run()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_four_parts_make_the_step_of_the_whole(tmp_path, kind):
    for parts in (1, 4):
        # both add the same terms, in another order; adamw divides by roots of tiny squares
        out = tmp_path / str(parts)
        trainer = make(out, net={"norm": "group"}, train=Slice(parts), optimizer=kind, lr=1e-3)
        trainer.run()
    first, second = (final(tmp_path / str(parts)).tensors["model"] for parts in (1, 4))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-6)


def test_equals_a_loop_of_ten_lines(tmp_path):
    trainer = make(
        tmp_path, net={"norm": "group"}, lr=0.1, lr_schedule="constant", weight_decay=0.01
    )
    trainer.run()
    torch.manual_seed(0)
    net = network("group")
    build_method("ce", net, task())
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, nesterov=True, weight_decay=0.01)
    for epoch in range(2):
        for (batch,) in Slice().epoch(epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(batch.inputs), batch.targets).backward()
            optimizer.step()
    checkpoint = final(tmp_path).tensors["model"]
    for name, value in net.state_dict().items():
        torch.testing.assert_close(checkpoint[name], value, rtol=1e-6, atol=1e-7)


def test_clip_bounds_the_gradient_and_logs_its_true_norm(tmp_path):
    recorded = []

    free = make(tmp_path / "free", log_every_steps=1)
    free.run()
    tight = make(tmp_path / "tight", log_every_steps=1, clip_grad_norm=1e-3, momentum=0.0,
                 weight_decay=0.0, lr_schedule="constant", lr=1.0)  # fmt: skip
    before = {n: p.detach().clone() for n, p in tight.method.named_parameters()}

    def moved(step):
        progress = {n: p.detach().clone() for n, p in tight.method.named_parameters()}
        recorded.append(sum((progress[n] - before[n]).square().sum() for n in progress).sqrt())
        before.update(progress)

    tight.callback = Calls(moved)
    tight.run()
    norms = [e["grad_norm"] for e in lines(tmp_path / "free") if e["kind"] == "step"]
    clipped = [e["grad_norm"] for e in lines(tmp_path / "tight") if e["kind"] == "step"]
    assert clipped[0] == pytest.approx(norms[0], rel=1e-5)  # the norm before clipping
    assert all(float(size) <= 1e-3 * (1 + 1e-4) for size in recorded)
    assert max(float(size) for size in recorded) > 0.9e-3


def test_average_follows_a_hand_loop(tmp_path):
    state = {}

    def follow(step):
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in method.state_dict().items():
            if step == 1 or not value.is_floating_point():
                state[name] = born[name].clone() if step == 1 else value.clone()
            if value.is_floating_point():
                state[name] += (1 - decay) * (value - state[name])
            else:
                state[name] = value.clone()

    trainer = make(tmp_path, ema_decay=0.3, callback=Calls(follow))
    method = trainer.method
    born = {name: value.clone() for name, value in method.state_dict().items()}
    plain = make(tmp_path / "plain")
    # the callback hears of a step after the average has moved with it
    trainer.run()
    plain.run()
    checkpoint = final(tmp_path)
    for name, value in state.items():
        torch.testing.assert_close(checkpoint.tensors["ema"][name], value)
    live, without = checkpoint.tensors["model"], final(tmp_path / "plain").tensors["model"]
    assert all(torch.equal(live[name], without[name]) for name in live)  # it joins no training


def test_lines_of_a_run(tmp_path):
    make(tmp_path, "muse").run()
    entries = lines(tmp_path)
    assert [(e["kind"], e["step"]) for e in entries] == [
        ("step", 1), ("step", 2), ("epoch", 3), ("step", 4), ("step", 6), ("epoch", 6)
    ]  # fmt: skip
    for entry in entries:
        assert {"task", "task/1", "soft/1", "mutual/1", "self/1"} == entry["losses"].keys()
        assert {"mutual/1", "self/1"} <= entry["monitors"].keys()
        assert json.dumps(entry)
    assert entries[-1]["val"].keys() == {"exit1", "student"}
    assert all(0 <= v["accuracy"] <= 1 for v in entries[-1]["val"].values())


def test_means_of_an_epoch_are_means_of_its_steps(tmp_path):
    make(tmp_path, log_every_steps=1).run()
    entries = lines(tmp_path)
    for epoch in (0, 1):
        steps = [
            e["losses"]["task"] for e in entries if e["kind"] == "step" and e["epoch"] == epoch
        ]
        (mean,) = (
            e["losses"]["task"] for e in entries if e["kind"] == "epoch" and e["epoch"] == epoch
        )
        assert len(steps) == STEPS
        assert mean == pytest.approx(sum(steps) / STEPS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_stops(tmp_path, number):
    before = signal.getsignal(number)
    trainer = make(tmp_path, callback=Calls(lambda s: s == 2 and os.kill(os.getpid(), number)))
    with pytest.raises(Interrupted) as stop:
        trainer.run()
    assert stop.value.number == number
    assert final(tmp_path).state["step"] == 2
    assert not final(tmp_path).state["finished"]
    assert signal.getsignal(number) is before


def test_second_interrupt_stops_at_once(tmp_path):
    def twice(step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, callback=Calls(twice)).run()


def test_runs_where_signals_are_somebody_elses(tmp_path):
    import threading

    trainer = make(tmp_path)
    thread = threading.Thread(target=trainer.run)
    thread.start()
    thread.join()
    assert final(tmp_path).state["finished"]


def test_all_samples_of_a_step_are_trained_on(tmp_path):
    class Counts(Method):
        def __init__(self):
            super().__init__()
            self.student, self.indices = network(), []

        def forward(self, batch, progress):
            self.indices += batch.indices.tolist()
            out = self.student(batch.inputs)
            return StepOutput(out, {"task": nn.functional.cross_entropy(out, batch.targets)})

    method = Counts()
    make(tmp_path, method=method, train=Slice(parts=2)).run()
    first, second = method.indices[: STEPS * 8], method.indices[STEPS * 8 :]
    assert len(set(first)) == len(first) == len(set(second)) == len(second) == STEPS * 8
    assert set(first) <= set(range(len(images())))


def test_hooks_of_a_callback_in_order(tmp_path):
    class Recorder(Callback):
        def __init__(self):
            self.calls = []

        def on_step(self, step, total_steps):
            self.calls.append(("step", step, total_steps))

        def on_log(self, entry, total_steps):
            self.calls.append((entry["kind"] + " line", entry["step"], total_steps))

        def on_epoch(self, entry):
            self.calls.append((entry["kind"], entry["step"], entry["epoch"]))

    recorder = Recorder()
    make(tmp_path, callback=recorder, log_every_steps=3).run()
    assert recorder.calls == [
        ("step", 1, 6), ("step line", 1, 6), ("step", 2, 6), ("step", 3, 6), ("step line", 3, 6),
        ("epoch", 3, 0),
        ("step", 4, 6), ("step", 5, 6), ("step", 6, 6), ("step line", 6, 6), ("epoch", 6, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("step", "warned"), [(36, False), (499, False), (500, True)])
def test_terms_at_chance_are_one_line_and_not_before_some_hundred_steps(tmp_path, step, warned):
    class Messages(Callback):
        def __init__(self):
            self.messages = []

        def on_message(self, message):
            self.messages.append(message)

    class Monitored(Terms):
        def diagnose(self, monitors):
            return dict.fromkeys(monitors, "still at chance") | {"c": "saturated"}

    trainer = make(tmp_path, method=Monitored(""), callback=Messages())
    trainer.global_step = step
    for _ in range(2):
        trainer.warnings.report(1, trainer.global_step, {"a": 1.0, "b": 1.0})
    want = ["epoch 2: a, b: still at chance", "epoch 2: c: saturated"]
    assert trainer.callback.messages == (want if warned else [])
