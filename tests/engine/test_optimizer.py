import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from torch import nn

from selfdistill.core import Method, StepOutput
from selfdistill.engine.optimizer import (
    EMA,
    build_optimizer,
    learning_rate,
    schedule_notes,
    set_learning_rate,
)
from selfdistill.engine.optimizer_state import optimizer_tensors, restore_optimizer
from selfdistill.engine.settings import TrainingSettings


class Pair(Method):
    """Two layers, the second at a tenth of the rate and without decay; one frozen."""

    def __init__(self):
        super().__init__()
        self.student, self.slow = nn.Linear(3, 4), nn.Linear(4, 2)
        self.fixed = nn.Linear(2, 2).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch, progress):
        out = self.scale * self.slow(self.student(batch).tanh())
        return StepOutput(out, {"task": out.square().mean()})

    def param_groups(self):
        slow = {"params": list(self.slow.parameters()), "lr_scale": 0.1, "weight_decay": 0.0}
        return [{"params": [*self.student.parameters(), self.scale]}, slow]


def test_cosine_ends_at_a_part_of_the_rate():
    settings = TrainingSettings(lr=0.01, lr_end_ratio=0.2, epochs=7)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 35, eta_min=0.002)
    for step in range(35):
        assert learning_rate(settings, step, 5) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-9
        )
        optimizer.step()
        scheduler.step()


def test_published_schedule():  # BYOT's and MUSE's: 0.1, a tenth at epochs 75, 130 and 180
    settings = TrainingSettings(epochs=200, lr=0.1, lr_schedule="step", milestones=(75, 130, 180))
    spe = 391
    for epoch, rate in [(0, 0.1), (74, 0.1), (75, 0.01), (129, 0.01), (130, 1e-3), (179, 1e-3),
                        (180, 1e-4), (199, 1e-4)]:  # fmt: skip
        for step in (epoch * spe, epoch * spe + spe - 1):
            assert learning_rate(settings, step, spe) == pytest.approx(rate, rel=1e-12)


def reference(make, settings: TrainingSettings, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=settings.lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours(settings: TrainingSettings, spe: int) -> list[float]:
    return [learning_rate(settings, step, spe) for step in range(settings.epochs * spe)]


def test_cosine_equals_torch():
    settings = TrainingSettings(epochs=7, lr=0.3, lr_schedule="cosine")
    make = lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=35)  # noqa: E731
    assert ours(settings, 5) == pytest.approx(reference(make, settings, 35), rel=1e-9, abs=1e-12)


def test_steps_equal_torch():
    settings = TrainingSettings(
        epochs=9, lr=0.3, lr_schedule="step", milestones=(2, 5), lr_gamma=0.3
    )
    make = lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [8, 20], gamma=0.3)  # noqa: E731
    assert ours(settings, 4) == pytest.approx(reference(make, settings, 36), rel=1e-12)


def test_constant_stays():
    assert set(ours(TrainingSettings(epochs=3, lr=0.2, lr_schedule="constant"), 4)) == {0.2}


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_warm_up_is_linear_and_meets_the_schedule(schedule):
    settings = TrainingSettings(
        epochs=10, lr=0.4, lr_schedule=schedule, warmup_epochs=2.0, milestones=(5,)
    )
    rates = ours(settings, 5)
    assert rates[:10] == pytest.approx([0.4 * (i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(0.4)
    assert max(rates) == pytest.approx(0.4)


def test_warm_up_of_part_of_an_epoch():
    rates = ours(TrainingSettings(epochs=2, lr=0.4, lr_schedule="constant", warmup_epochs=0.5), 8)
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_cosine_falls_to_nearly_nothing():
    rates = ours(TrainingSettings(epochs=10, lr=1.0, warmup_epochs=1.0), 100)
    falling = rates[100:]
    assert all(a > b for a, b in itertools.pairwise(falling))
    assert 0 < rates[-1] < 1e-5


def test_warm_up_longer_than_the_run_does_not_divide_by_zero():
    rates = ours(TrainingSettings(epochs=1, lr=1.0, warmup_epochs=3.0), 4)
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)


def cycled(settings: TrainingSettings, spe: int, cycles: int) -> list[float]:
    return [learning_rate(settings, s, spe, cycles) for s in range(settings.epochs * spe)]


@pytest.mark.parametrize(
    ("parts", "notes"),
    [
        ({"lr_schedule": "step", "milestones": (3, 5, 8)}, ["milestone 5, 8"]),
        ({"lr_schedule": "step", "milestones": (0, 4)}, []),
        ({"milestones": (8,)}, []),  # of no schedule that reads them
        ({"warmup_epochs": 5.0}, []),
        ({"warmup_epochs": 5.5}, ["never reaches 0.4"]),
    ],
)
def test_what_a_schedule_never_comes_to_is_said(parts, notes):
    settings = TrainingSettings(epochs=5, lr=0.4, **parts)
    told = schedule_notes(settings)
    assert len(told) == len(notes)
    assert all(part in note for part, note in zip(notes, told, strict=True))
    last = learning_rate(settings, 49, 10)
    if told and settings.milestones:
        assert last == pytest.approx(0.4 * 0.1)  # one of three drops
    elif told:
        assert last < 0.4


@pytest.mark.parametrize("cycles", [1, 2, 3, 6])
def test_cycles_equal_torchs_warm_restarts(cycles):
    settings = TrainingSettings(epochs=6, lr=0.3, lr_schedule="cosine")
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts
    want = reference(lambda o: scheduler(o, T_0=30 // cycles), settings, 30)
    assert cycled(settings, 5, cycles) == pytest.approx(want, rel=1e-9, abs=1e-12)


@settings_of_hypothesis(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 70))
def test_cycles_of_any_number_start_anew_and_fall(epochs, spe, cycles):
    settings, total = TrainingSettings(epochs=epochs, lr=0.3, lr_schedule="cosine"), epochs * spe
    rates = cycled(settings, spe, cycles)
    cycle = [step * cycles // total for step in range(total)]
    for step, rate in enumerate(rates):
        if step == 0 or cycle[step] != cycle[step - 1]:
            assert rate == settings.lr
        else:
            assert 0 < rate < rates[step - 1]
    lengths = [cycle.count(c) for c in range(cycles)]
    assert max(lengths) - min(lengths) <= 1


def test_warm_up_is_of_the_first_cycle_alone():
    rates = cycled(
        TrainingSettings(epochs=8, lr=0.4, lr_schedule="cosine", warmup_epochs=1.0), 5, 2
    )
    assert rates[:5] == pytest.approx([0.4 * (i + 1) / 5 for i in range(5)])
    assert rates[5] == rates[20] == 0.4
    assert rates[20:] == cycled(TrainingSettings(epochs=8, lr=0.4, lr_schedule="cosine"), 5, 2)[20:]
    assert 0 < rates[19] < rates[18]


def test_warm_up_beyond_the_first_cycle_meets_the_second():
    rates = cycled(
        TrainingSettings(epochs=8, lr=0.4, lr_schedule="cosine", warmup_epochs=5.0), 4, 2
    )
    assert rates[:20] == pytest.approx([0.4 * (i + 1) / 20 for i in range(20)])
    assert rates[20] == 0.4
    assert all(a > b for a, b in itertools.pairwise(rates[20:]))


@pytest.mark.parametrize("schedule", ["step", "constant"])
def test_other_schedules_know_no_cycles(schedule):
    settings = TrainingSettings(
        epochs=6, lr=0.3, lr_schedule=schedule, milestones=(2, 4), lr_gamma=0.5
    )
    assert cycled(settings, 5, 3) == ours(settings, 5)


def test_groups_scale_the_rate_and_keep_their_decay():
    method = Pair()
    optimizer = build_optimizer(method, TrainingSettings(lr=0.5, weight_decay=1e-3))
    set_learning_rate(optimizer, 0.2)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.2, 0.02])
    assert [g["weight_decay"] for g in optimizer.param_groups] == [1e-3, 0.0]
    inside = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert inside == {id(p) for p in method.parameters() if p.requires_grad}


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.9, False), (0.0, True)])
def test_sgd_takes_its_momentum(momentum, nesterov):
    optimizer = build_optimizer(Pair(), TrainingSettings(momentum=momentum, nesterov=nesterov))
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == momentum
    assert optimizer.defaults["nesterov"] == (nesterov and momentum > 0)


def advance(method: Method, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for i in steps:
        optimizer.zero_grad()
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(i))
        method(x, None).total.backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_optimizer_goes_on_from_its_tensors(kind):
    settings = TrainingSettings(optimizer=kind, lr=0.05)
    straight, resumed = Pair(), Pair()
    first = build_optimizer(straight, settings)
    advance(straight, first, range(4))
    resumed.load_state_dict(straight.state_dict())
    tensors = {k: v.clone() for k, v in optimizer_tensors(first, straight).items()}
    assert any(name.startswith("slow.weight/") for name in tensors)
    assert "scale/" in "".join(tensors)
    second = build_optimizer(resumed, settings)
    restore_optimizer(second, resumed, tensors)
    advance(straight, first, range(4, 8))
    advance(resumed, second, range(4, 8))
    for first, second in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(first, second)


def test_average_equals_a_hand_loop():
    torch.manual_seed(0)
    state = {"w": torch.randn(3, 2), "n": torch.tensor(0), "b": torch.randn(4).double()}
    average, want = EMA(state, 0.3), {k: v.clone() for k, v in state.items()}
    decays = [2 / 11, 3 / 12, 0.3, 0.3, 0.3]
    for i, decay in enumerate(decays, 1):
        state["w"] += torch.randn(3, 2)
        state["b"] *= 1.5
        state["n"] += 1
        average.update(state, i)
        for name in ("w", "b"):
            want[name] += (1 - decay) * (state[name] - want[name])
        assert average.state["n"] == i
    torch.testing.assert_close(average.state["w"], want["w"])
    torch.testing.assert_close(average.state["b"], want["b"])
    assert average.state["w"].data_ptr() != state["w"].data_ptr()


def test_a_short_average_forgets_the_initial_weights():
    average = EMA({"w": torch.ones(())}, 0.999)
    for step in range(1, 101):
        average.update({"w": torch.zeros(())}, step)
    left = math.factorial(101) * math.factorial(10) / math.factorial(110)  # the decays' product
    torch.testing.assert_close(average.state["w"], torch.tensor(left), atol=0, rtol=1e-4)


def test_slots_live_where_their_parameter_lives():
    first, restored = Pair(), Pair().to("meta")
    optimizer = build_optimizer(first, TrainingSettings(lr=0.05))
    advance(first, optimizer, range(2))
    second = build_optimizer(restored, TrainingSettings(lr=0.05))
    restore_optimizer(second, restored, optimizer_tensors(optimizer, first))
    for parameter, state in second.state.items():
        assert state["momentum_buffer"].device == parameter.device, tuple(parameter.shape)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_slots_have_the_memory_format_of_their_parameter(kind):
    """By which muon's products round; files hold all tensors in the usual order."""

    def convolution() -> Method:
        method = Convolution()
        method.student.to(memory_format=torch.channels_last)
        return method

    class Convolution(Method):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.student = nn.Conv2d(3, 4, 3, bias=False)

        def forward(self, batch, progress):
            return StepOutput(None, {"loss": self.student(batch).square().mean()})

    first, restored = convolution(), convolution()
    settings = TrainingSettings(optimizer=kind, lr=0.05)
    optimizer, second = build_optimizer(first, settings), build_optimizer(restored, settings)
    first(torch.randn(2, 3, 8, 8), None).total.backward()
    optimizer.step()
    saved = {k: v.contiguous() for k, v in optimizer_tensors(optimizer, first).items()}
    restore_optimizer(second, restored, saved)
    slots = second.state[restored.student.weight].values()
    slots = [v for v in slots if isinstance(v, torch.Tensor) and v.dim() == 4]
    assert slots
    assert all(v.is_contiguous(memory_format=torch.channels_last) for v in slots)
