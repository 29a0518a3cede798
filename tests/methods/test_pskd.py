"""PS-KD against the authors' loop in numpy, and its memory: what is written, saved and resumed."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from selfdistill.core import METHODS, ConfigError, Progress, options, trained_state

TRAIN_LABELS = torch.arange(40) % 5
STEPS = 5  # of an epoch: 40 images in batches of 8


def pskd(net, task, **chosen):
    return METHODS["pskd"](net, task, TRAIN_LABELS, **chosen)


def moment(step: int, total: int = 20) -> Progress:
    return Progress(*(torch.tensor(n) for n in (0, step // STEPS, step, total)))


def batch_of(step: int, batch):
    """Eight images of an epoch that goes through all forty, in an order of its own."""
    order = torch.randperm(40, generator=torch.Generator().manual_seed(step // STEPS))
    index = order[8 * (step % STEPS) :][:8]
    inputs = torch.randn(8, *batch.inputs.shape[1:], generator=torch.Generator().manual_seed(step))
    return batch._replace(inputs=inputs, targets=TRAIN_LABELS[index], indices=index)


def train(method, batch, steps):
    """The losses of some steps of training."""
    optimizer, losses = torch.optim.SGD(method.param_groups(), lr=0.5), []
    for step in steps:
        optimizer.zero_grad()
        output = method(batch_of(step, batch), moment(step))
        output.total.backward()
        optimizer.step()
        method.after_step(moment(step))
        losses.append(output.total.item())
    return losses


def test_three_epochs_equal_the_authors_loop_in_numpy(tiny_net, tiny_task, batch):
    method = pskd(tiny_net, tiny_task).train()
    seen = []
    method.student.register_forward_hook(lambda *a: seen.append(a[2].detach().double().numpy()))
    losses = train(method, batch, range(15))
    memory = np.zeros((40, 5))
    for step, (logits, loss) in enumerate(zip(seen, losses, strict=True)):
        index = batch_of(step, batch).indices.numpy()
        labels = np.eye(5)[TRAIN_LABELS[index]]
        if step < STEPS:
            memory[index] = labels
        alpha = 0.8 * step / 20
        target = (1 - alpha) * labels + alpha * memory[index]
        assert loss == pytest.approx(-(target * log_softmax(logits, 1)).mean(0).sum(), rel=1e-5)
        memory[index] = softmax(logits, 1)
    np.testing.assert_allclose(method.predictions, memory, atol=1e-6)


def test_the_first_epoch_is_plain_training(tiny_net, tiny_task, batch):
    plain = METHODS["ce"](copy.deepcopy(tiny_net), tiny_task)
    method = pskd(tiny_net, tiny_task)
    assert train(method, batch, range(5)) == pytest.approx(train(plain, batch, range(5)), rel=1e-5)
    assert train(method, batch, [5]) != pytest.approx(train(plain, batch, [5]), rel=1e-5)


def test_forward_changes_no_state_and_evaluation_records_nothing(tiny_net, tiny_task, batch):
    method = pskd(tiny_net, tiny_task)
    before = method.predictions.clone()
    method(batch_of(0, batch), moment(0))
    assert torch.equal(before, method.predictions)
    assert len(method.pending) == 1
    method.after_step(moment(0))
    assert not method.pending
    assert not torch.equal(before, method.predictions)
    method.eval()(batch_of(1, batch), moment(1))
    assert not method.pending


def test_all_passes_of_a_step_are_written(tiny_net, tiny_task, batch):
    method = pskd(tiny_net, tiny_task)
    for step in (0, 1):
        method(batch_of(step, batch), moment(0))
    method.after_step(moment(0))
    changed = (method.predictions != pskd(tiny_net, tiny_task).predictions).any(1)
    written = torch.cat([batch_of(step, batch).indices for step in (0, 1)])
    assert changed.nonzero()[:, 0].tolist() == sorted(written.tolist())


def test_a_resume_is_exact(tiny_net, tiny_task, batch):
    straight, stopped = (pskd(copy.deepcopy(tiny_net), tiny_task) for _ in range(2))
    train(straight, batch, range(7))
    train(stopped, batch, range(7))
    resumed = pskd(copy.deepcopy(tiny_net), tiny_task)
    state = {name: value.clone() for name, value in trained_state(stopped).items()}
    assert not any(resumed.load_state_dict(state, strict=False))
    assert train(straight, batch, range(7, 12)) == train(resumed, batch, range(7, 12))
    assert torch.equal(straight.predictions, resumed.predictions)


def test_copies_record_for_themselves(tiny_net, tiny_task, batch):
    method = pskd(tiny_net, tiny_task)
    twin = copy.deepcopy(method)
    twin(batch_of(0, batch), moment(0))
    assert (len(method.pending), len(twin.pending)) == (0, 1)


def test_options_and_defaults(tiny_net, tiny_task):
    assert {o.name: o.default for o in options(METHODS["pskd"]).values()} == {"soft_weight": 0.8}
    with pytest.raises(ConfigError, match=r"soft_weight=1.5 is no share"):
        pskd(tiny_net, tiny_task, soft_weight=1.5)
