"""CRD against closed forms and numpy; its memory, and where its gradients stop."""

import math

import numpy as np
import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import nn

from selfdistill.core import METHODS, ConfigError, options, trained_state
from selfdistill.methods.crd import contrastive_losses
from selfdistill.modules.memory import MemoryBank
from selfdistill.taps import Taps, Teacher

LABELS = torch.arange(40) % 5


def small_teacher() -> nn.Module:
    torch.manual_seed(7)
    conv = nn.Sequential(nn.Conv2d(3, 10, 3, 4), nn.BatchNorm2d(10), nn.ReLU())
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5))


def crd(tiny_net, tiny_task, labels=LABELS, **keywords):
    student = Taps(tiny_net, example=tiny_task.example)
    teacher = Teacher(Taps(small_teacher(), ["0"], example=tiny_task.example))
    torch.manual_seed(0)
    return METHODS["crd"](student, teacher, tiny_task, labels, **keywords).train()


@pytest.mark.parametrize("k", [1, 100, 4096, 16384])
def test_equal_scores_give_the_closed_form(k):
    samples = 50_000
    sides = contrastive_losses(torch.zeros(2, 3, 1 + k), torch.full((2,), float(samples)), samples)
    want = math.log(1 + k) + k * math.log((1 + k) / k)
    # the constant beside K/N in h counts where K/N is small
    assert sides.tolist() == pytest.approx([want, want], rel=1e-3)
    if k == 16384:
        assert sides[0].item() == pytest.approx(10.704, abs=1e-3)


def test_contrast_equals_numpy():
    torch.manual_seed(0)
    samples, k = 300, 40
    powers, z = 3 * torch.randn(2, 6, 1 + k), torch.tensor([500.0, 900.0])
    u = np.exp(powers.double().numpy()) / z.double().numpy()[:, None, None]
    h = u / (u + k / samples + 1e-7)
    want = -(np.log(h[..., 0]) + np.log(1 - h[..., 1:]).sum(-1)).mean(-1)
    np.testing.assert_allclose(contrastive_losses(powers, z, samples).numpy(), want, rtol=1e-5)


def test_first_step_of_random_embeddings():
    """Their scores are near to Gaussian, which gives ln K + 1 + var / 2: 11.5 on CIFAR-100."""
    torch.manual_seed(0)
    samples, batch, k, width, temperature = 50_000, 64, 16384, 128, 0.07
    memory = MemoryBank(samples, width)
    v = F.normalize(torch.randn(2 * batch, width))
    scores = memory(v, torch.randint(samples, (2 * batch, 1 + k)))
    powers = scores.view(2, batch, -1) / temperature
    sides = contrastive_losses(powers, samples * powers.exp().mean((1, 2)), samples)
    want = math.log(k) + 1 + 1 / (2 * width * temperature**2)
    assert want == pytest.approx(11.5, abs=0.01)
    assert sides.mean().item() == pytest.approx(want, abs=0.25)


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_contrast_is_finite_at_any_score(scale):
    powers = scale * torch.linspace(-1, 1, 22).view(2, 1, 11)
    powers.requires_grad_()
    loss = contrastive_losses(powers, torch.ones(2), 30).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(powers.grad).all()


def test_terms_equal_numpy(tiny_net, tiny_task, batch, progress):
    method = crd(tiny_net, tiny_task, contrastive_weight=0.3)
    step = method(batch, progress)
    (index, v_student, v_teacher, _), rows = (
        method.pending[0],
        method._rows(batch.indices, progress).numpy(),
    )
    assert torch.equal(index, batch.indices)
    n, k = 40, 32
    want = 0.0
    pairs = (
        ("student", v_student, method.memory_teacher),
        ("teacher", v_teacher, method.memory_student),
    )
    for side, v, memory in pairs:
        bank = memory.rows.double().numpy()
        exps = np.exp(np.einsum("bkd,bd->bk", bank[rows], v.double().numpy()) / 0.07)
        u = exps / (exps.mean() * n)
        h = u / (u + k / n + 1e-7)
        value = -(np.log(h[:, 0]) + np.log(1 - h[:, 1:]).sum(1)).mean()
        assert step.monitors[f"contrast/{side}"].item() == pytest.approx(value, rel=1e-5)
        want += 0.3 * value
    assert step.losses["contrast"].item() == pytest.approx(want, rel=1e-5)
    assert step.losses["task"].item() == pytest.approx(
        F.cross_entropy(step.outputs, batch.targets).item()
    )


def test_soft_term_is_distillation_of_logits(tiny_net, tiny_task, batch, progress):
    method = crd(tiny_net, tiny_task, soft_weight=0.5)
    step = method(batch, progress)
    log_probabilities = (step.outputs / 4).log_softmax(1)
    kl = F.kl_div(
        log_probabilities, (method.teacher(batch.inputs) / 4).softmax(1), reduction="batchmean"
    )
    torch.testing.assert_close(step.losses["soft"], 0.5 * 16 * kl)
    assert "soft" not in crd(tiny_net, tiny_task)(batch, progress).losses


def test_slots_and_keys_of_a_step(tiny_net, tiny_task, batch, progress):
    method = crd(tiny_net, tiny_task, num_negatives=20)
    rows = method._rows(batch.indices, progress)
    assert rows.shape == (8, 21)
    assert torch.equal(rows[:, 0], batch.indices)  # the positive comes first
    assert (LABELS[rows[:, 1:]] != LABELS[batch.indices][:, None]).all()
    later = method._rows(batch.indices, progress._replace(step=torch.tensor(1)))
    seeded = method._rows(batch.indices, progress._replace(seed=torch.tensor(1)))
    for other in (later, seeded):
        assert not torch.equal(other[:, 1:], rows[:, 1:])
    swapped = method._rows(batch.indices.flip(0), progress)
    assert torch.equal(swapped.flip(0), rows)  # keyed by the image, not by its place in the batch


def test_positives_of_a_class(tiny_net, tiny_task, batch, progress):
    method = crd(tiny_net, tiny_task, positives="class")
    rows = method._rows(batch.indices, progress)
    assert (LABELS[rows[:, 0]] == LABELS[batch.indices]).all()
    assert not torch.equal(rows[:, 0], batch.indices)


def memories(method) -> list[torch.Tensor]:
    return [method.memory_student.rows.clone(), method.memory_teacher.rows.clone()]


def test_memory_moves_after_the_step_and_where_it_was_seen(tiny_net, tiny_task, batch, progress):
    method = crd(tiny_net, tiny_task)
    before = memories(method)
    moved = batch._replace(indices=torch.tensor([3, 9, 11, 12, 20, 21, 30, 39]))
    method(moved, progress).total.backward()
    _, v_student, v_teacher, _ = method.pending[0]
    assert not v_student.requires_grad
    for was, rows in zip(before, memories(method), strict=True):
        assert torch.equal(was, rows)
    method.after_step(progress)
    assert method.pending == []
    unmoved = torch.ones(40, dtype=torch.bool).index_fill(0, moved.indices, False)
    for was, rows, new in zip(before, memories(method), (v_student, v_teacher), strict=True):
        assert torch.equal(rows[unmoved], was[unmoved])
        torch.testing.assert_close(rows[moved.indices].norm(dim=1), torch.ones(8))
        want = was[moved.indices] + new
        torch.testing.assert_close(rows[moved.indices], want / want.norm(dim=1, keepdim=True))


def test_evaluation_leaves_no_trace(tiny_net, tiny_task, batch, progress):
    method = crd(tiny_net, tiny_task).eval()
    before = memories(method)
    method(batch, progress)
    method.after_step(progress)
    assert all(torch.equal(a, b) for a, b in zip(before, memories(method), strict=True))
    assert (method.constants < 0).all()


def test_constants_are_the_mean_of_the_first_step_and_stay(tiny_net, tiny_task, batch, progress):
    method = crd(tiny_net, tiny_task)
    other = batch._replace(inputs=batch.inputs.flip(0), indices=batch.indices + 8)
    estimates = []
    for part in (batch, other):  # two passes make this step
        method(part, progress)
        estimates.append(method.pending[-1][3])
    assert (method.constants < 0).all()
    method.after_step(progress)
    first = method.constants.clone()
    torch.testing.assert_close(first, torch.cat(estimates).mean(0))
    before = method(other, progress).losses["contrast"]
    method.constants.mul_(3)
    assert method(other, progress).losses["contrast"] != before  # it is computed with them
    method.constants.div_(3)
    method.after_step(progress)
    torch.testing.assert_close(method.constants, first, rtol=1e-6, atol=0)


def test_state_carries_memory_and_constants(tiny_net, tiny_task, batch, progress):
    method, other = crd(tiny_net, tiny_task), crd(tiny_net, tiny_task, LABELS.flip(0))
    method(batch, progress)
    method.after_step(progress)
    state = trained_state(method)
    assert {"constants", "memory_student.rows", "memory_teacher.rows"} <= state.keys()
    assert not [name for name in state if name.startswith("draws")]
    other.load_state_dict(state, strict=False)
    assert torch.equal(other.constants, method.constants)
    assert (other.constants > 0).all()
    assert torch.equal(other.memory_teacher.rows, method.memory_teacher.rows)


def test_contrast_trains_both_embeddings_and_the_trunk(tiny_net, tiny_task, batch, progress):
    method = crd(tiny_net, tiny_task)
    method(batch, progress).losses["contrast"].backward()
    for layer in (method.embed_student, method.embed_teacher, tiny_net.stage1[0]):
        assert layer.weight.grad.abs().sum() > 0
    assert tiny_net.fc.weight.grad is None
    assert all(p.grad is None for p in method.teacher.parameters())


def test_contrast_learns_to_tell_images(tiny_net, tiny_task, batch, progress):
    method = crd(tiny_net, tiny_task, embedding_width=16)
    optimizer = torch.optim.Adam(method.param_groups(), lr=3e-3)
    values = []
    for step in range(60):
        moment = progress._replace(step=torch.tensor(step))
        taken = method(batch, moment)
        optimizer.zero_grad()
        taken.total.backward()
        optimizer.step()
        method.after_step(moment)
        values.append(taken.losses["contrast"].item())
    assert values[-1] < 0.5 * values[0]


def test_negatives_are_capped_by_what_is_there(tiny_net, tiny_task):
    assert crd(tiny_net, tiny_task).num_negatives == 32
    assert crd(tiny_net, tiny_task, num_negatives=31).num_negatives == 31
    labels = torch.tensor([0] * 30 + [1, 2, 3, 4])
    assert crd(tiny_net, tiny_task, labels).num_negatives == 4


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"contrastive_weight": 0.0}, "method 'kd'"),
        ({"num_negatives": 0}, "1 negative or more"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, "two classes"),
    ],
)
def test_what_it_refuses(keywords, message, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=message):
        crd(tiny_net, tiny_task, **keywords)


@pytest.mark.slow
def test_passes_of_one_step_share_what_was_compiled(tiny_net, tiny_task, batch, progress):
    torch._dynamo.reset()
    method = crd(tiny_net, tiny_task)
    method.compile(backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):
            for _ in range(3):
                method(batch, progress).total.backward()
            assert len(method.pending) == 3
            method.after_step(progress)


def test_needs_and_defaults(tiny_net, tiny_task):
    method = crd(tiny_net, tiny_task)
    assert list(method.predictors()) == ["student"]
    assert METHODS["crd"].needs.image_labels
    defaults = {o.name: o.default for o in options(METHODS["crd"]).values()}
    assert defaults == {
        "contrastive_weight": 0.8,
        "soft_weight": 0.0,
        "temperature": 4.0,
        "num_negatives": 16384,
        "positives": "instance",
        "contrast_temperature": 0.07,
        "embedding_width": 128,
        "memory_momentum": 0.5,
    }
