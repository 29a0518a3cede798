"""What a step is made of, for every method: named losses, their sum, what they train."""

import math

import pytest
import torch
from contract_cases import (
    DEFAULTS,
    UNSURE,
    every_case,
    every_default,
    every_method,
    moment,
    one_of_a_kind,
    variants_on_one_task,
)
from torch import nn

from selfdistill.core import METHODS, Method, StepOutput
from selfdistill.recipe.build_method import teacher_network
from selfdistill.tasks.embedding import standardized


@every_case
def test_losses_are_finite_named_and_summed(case):
    step = case.method()(case.batch(), moment())
    assert step.losses
    for name, loss in step.losses.items():
        assert isinstance(name, str)
        assert loss.dim() == 0
        assert torch.isfinite(loss), name
    torch.testing.assert_close(step.total, torch.stack(list(step.losses.values())).sum())
    for name, value in step.monitors.items():
        assert not value.requires_grad, name
        assert value.dim() == 0
        assert torch.isfinite(value), name


@every_case
def test_smallest_batch_a_method_asks_for(case):
    size = max(2, METHODS[case.name].needs.batch)  # two, since batch norm needs two
    step = case.method()(case.batch(size=size), moment())
    assert all(torch.isfinite(loss) for loss in step.losses.values())


def strangers(method: Method, step: StepOutput) -> int:
    """How many leaves receive a gradient of the total without being parameters of the method."""
    own = {id(p) for p in method.parameters()}
    todo, seen, found = [step.total.grad_fn], set(), 0
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # AccumulateGrad has one
        found += variable is not None and id(variable) not in own
        todo += [parent for parent, _ in node.next_functions]
    return found


def unreached(method: Method, steps: list[StepOutput]) -> list[str]:
    """Trainable parameters that no gradient reaches, or only zeros or infinities do.

    Those of a method whose training has several parts may have none in some of the steps.
    """
    sums = {name: 0.0 for name, p in method.named_parameters() if p.requires_grad}
    for step in steps:
        method.zero_grad(set_to_none=True)
        step.total.backward()
        for name, parameter in method.named_parameters():
            if parameter.requires_grad:
                grad = parameter.grad
                none = math.nan if method.cycles == 1 else 0.0
                sums[name] += none if grad is None else float(grad.abs().sum())
    return [name for name, size in sums.items() if not 0 < size < math.inf]


@every_method
def test_gradients_reach_all_parameters_and_nothing_else(case):
    method, steps = case.method(), []
    for cycle in range(method.cycles):
        steps += [method(case.batch(seed), moment(seed)) for seed in range(3)]
        if method.cycles > 1:
            method.after_step(moment(-(-1000 * (cycle + 1) // method.cycles) - 1))
    assert strangers(method, steps[0]) == 0
    assert unreached(method, steps) == []


class Hidden(Method):
    """Broken on purpose: its critic lies in a list, where torch does not see it."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(3, 5)
        self.critics = [nn.Linear(5, 1)]

    def forward(self, batch, progress):
        out = self.student(batch.inputs.mean((2, 3)))
        return StepOutput(out, {"critic": self.critics[0](out).square().mean()})


class Idle(Method):
    """Broken on purpose: a parameter without use, and one that always gets zeros."""

    def __init__(self):
        super().__init__()
        self.student, self.unused = nn.Linear(3, 5), nn.Linear(3, 5)
        self.silent = nn.Parameter(torch.ones(()))

    def forward(self, batch, progress):
        out = self.student(batch.inputs.mean((2, 3)))
        return StepOutput(out, {"task": out.square().mean() + 0 * self.silent})


def test_check_catches_a_critic_in_a_list(batch, progress):
    method = Hidden()
    assert strangers(method, method(batch, progress)) == 2  # weight and bias


def test_check_catches_idle_parameters(batch, progress):
    method = Idle()
    found = unreached(method, [method(batch, progress)])
    assert found == ["silent", "unused.weight", "unused.bias"]


@every_case
def test_one_step_moves_every_parameter(case):
    method = case.method()
    method(case.batch(), moment()).total.backward()
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    groups = method.param_groups()
    given = [id(p) for group in groups for p in group["params"]]
    assert len(given) == len(set(given))
    assert set(given) == {id(p) for p in method.parameters() if p.requires_grad}
    torch.optim.SGD(groups, lr=1.0).step()
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad or (method.cycles > 1 and parameter.grad is None):
            continue
        # what shifts all inputs of a batch norm or a softmax alike gets rounding errors only
        noise = parameter.grad is not None and parameter.grad.abs().max() < 1e-7
        assert noise or not torch.equal(parameter, before[name]), name


def teach(teacher, task, batch):
    """Trains a teacher on the batch: one that knows nothing keeps its student from learning."""
    teacher.train().requires_grad_(True)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=1e-2)
    network = teacher_network(teacher)
    for i in range(80):
        optimizer.zero_grad()
        task.loss(network(batch.inputs), batch.targets).backward()
        if isinstance(teacher, Method):
            teacher(batch, moment(i)).total.backward()
        optimizer.step()
    teacher.eval().requires_grad_(False).zero_grad()


# A detector's loss has a floor: the overlap of boxes that are nearly right.
FLOOR = {
    "classification": 0.2,
    "clips": 0.2,
    "segmentation": 0.2,
    "detection": 0.3,
    "embedding": 0.2,
}
GOOD = {
    "classification": 0.97,
    "clips": 0.97,
    "segmentation": 0.85,
    "detection": 0.4,
    "embedding": 0.8,
}


def check_learns(case):
    batch, seen, task = case.batch(size=16), [], case.make_task()
    if case.method().needs.trained_student:
        pytest.skip("its student stays as it is")
    companions = case.companions()
    taught = "teacher" in companions
    if taught and not task.embeddings:  # what knows nothing has features as good as others
        teach(companions["teacher"], task, batch)
    method, targets = case.method(companions=companions), batch.targets
    if task.embeddings:
        targets = standardized(method.teacher.forward_pooled(batch.inputs)[2])
    optimizer = torch.optim.Adam(method.param_groups(), lr=1e-2)
    # features weigh more than labels at first, and places take longer than images
    for i in range(160 if taught or case.task != "classification" else 60):
        step = method(batch, moment(i))
        seen.append(task.loss(step.outputs, targets).detach())
        optimizer.zero_grad()
        step.total.backward()
        optimizer.step()
        method.after_step(moment(i))
    assert seen[-1] < FLOOR[case.task] * seen[0] or case.name in UNSURE
    metric = task.metric()
    metric.update(step.outputs, targets)
    assert min(metric.compute().values()) > GOOD[case.task]


@one_of_a_kind
def test_learns_one_batch(case):
    check_learns(case)


@pytest.mark.slow
@variants_on_one_task
def test_every_variant_learns_one_batch(case):
    check_learns(case)


# Eight bits of mantissa: 0.4 % a rounding, which a net of a dozen layers multiplies a few times.
BF16 = {"rtol": 0.05, "atol": 0.02}


@every_case
def test_bf16_autocast_agrees_with_fp32(case):
    method, batch = case.method(), case.batch()
    full = method(batch, moment()).losses
    with torch.autocast("cpu", torch.bfloat16):
        half = method(batch, moment()).losses
    for name, loss in full.items():
        torch.testing.assert_close(
            half[name].float(), loss, **BF16, msg=lambda m, n=name: f"{n}: {m}"
        )


@every_default
def test_bf16_stays_finite_at_large_inputs(case):
    batch = case.batch()
    method = case.method()
    with torch.autocast("cpu", torch.bfloat16):
        step = method(batch._replace(inputs=batch.inputs * 100), moment())
    step.total.backward()
    assert all(torch.isfinite(loss) for loss in step.losses.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


@every_case
def test_draws_nothing_from_the_global_generator(case):
    method, batch = case.method(), case.batch()
    torch.manual_seed(1)
    first = method(batch, moment(5)).losses
    torch.manual_seed(2)
    again = method(batch, moment(5)).losses
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


@every_case
def test_names_of_terms_do_not_depend_on_the_step(case):
    method = case.method()
    first, later = (method(case.batch(s), moment(s)) for s in (0, 7))
    assert first.losses.keys() == later.losses.keys()
    assert first.monitors.keys() == later.monitors.keys()


def read(method: Method, case) -> StepOutput:
    """A step where no number is to be had: on torch's meta device any look at a value raises."""
    there = method.to("meta")
    batch = case.batch()
    batch = batch._replace(
        inputs=batch.inputs.to("meta"),
        targets=None if batch.targets is None else batch.targets.to("meta"),
        indices=batch.indices.to("meta"),
        views=tuple(view.to("meta") for view in batch.views),
        same_class_inputs=None
        if batch.same_class_inputs is None
        else batch.same_class_inputs.to("meta"),
        extra=None if batch.extra is None else batch.extra.to("meta"),
    )
    return there(batch, type(moment())(*(t.to("meta") for t in moment())))


@every_case
def test_forward_never_waits_for_the_device(case):
    step = read(case.method(), case)
    assert all(loss.is_meta for loss in step.losses.values())


@pytest.mark.parametrize(
    "look",
    [lambda x: x.item(), lambda x: x.cpu(), lambda x: x.tolist(), bool, float],
    ids=["item", "cpu", "tolist", "bool", "float"],
)
def test_check_catches_a_look_at_a_value(look):
    case = next(c for c in DEFAULTS if c.task == "classification")

    class Peeks(Hidden):
        def forward(self, batch, progress):
            out = self.student(batch.inputs.mean((2, 3)))
            loss = out.square().mean()
            look(loss)
            return StepOutput(out, {"task": loss})

    with pytest.raises((RuntimeError, NotImplementedError)):
        read(Peeks(), case)
