"""The baseline: one term, the student's cross-entropy."""

import torch
from torch import nn

from selfdistill.core import METHODS, options
from selfdistill.tasks import Classification


def test_equals_cross_entropy(tiny_net, tiny_task, batch, progress):
    step = METHODS["ce"](tiny_net, tiny_task)(batch, progress)
    assert step.losses.keys() == {"task"}
    want = nn.functional.cross_entropy(step.outputs, batch.targets)
    assert torch.equal(step.total, want)


def test_label_smoothing_is_the_tasks(tiny_net, tiny_task, batch, progress):
    task = Classification(tiny_task.classes, tiny_task.example, label_smoothing=0.2)
    step = METHODS["ce"](tiny_net, task)(batch, progress)
    want = nn.functional.cross_entropy(step.outputs, batch.targets, label_smoothing=0.2)
    torch.testing.assert_close(step.total, want)


def test_trains_as_a_loop_by_hand(tiny_net, tiny_task, batch, progress):
    """Three steps of SGD end at the same bits as without the package."""
    method = METHODS["ce"](tiny_net, tiny_task)
    start = {k: v.clone() for k, v in tiny_net.state_dict().items()}

    def run(loss_of) -> dict:
        tiny_net.load_state_dict(start)
        optimizer = torch.optim.SGD(tiny_net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of().backward()
            optimizer.step()
        return {k: v.clone() for k, v in tiny_net.state_dict().items()}

    ours = run(lambda: method(batch, progress).total)
    plain = run(lambda: nn.functional.cross_entropy(tiny_net(batch.inputs), batch.targets))
    assert all(torch.equal(ours[k], plain[k]) for k in ours)


def test_leaves_the_student_as_it_came(tiny_net, tiny_task):
    method = METHODS["ce"](tiny_net, tiny_task)
    assert method.predictors() == {"student": tiny_net}
    assert {id(p) for p in method.parameters()} == {id(p) for p in tiny_net.parameters()}
    assert options(METHODS["ce"]) == {}
