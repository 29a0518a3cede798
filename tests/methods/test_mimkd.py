"""MIMKD's three terms against closed forms and numpy, its pairs of stages, and its gradients."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from selfdistill.core import METHODS, Batch, ConfigError, Progress, Provenance, options
from selfdistill.functional.information_bounds import CHANCE
from selfdistill.methods.mimkd import CellLoss, DotLoss, critic_loss, stage_pairs
from selfdistill.taps import Taps, Teacher
from selfdistill.tasks import Classification

SHIFT = torch.tensor(1)
TERMS = ("global", "local", "feature/2", "feature/3")


def network(widths=(8, 12, 16, 24), strides=(1, 2, 2, 2)) -> nn.Module:
    torch.manual_seed(7)
    channels = (3, *widths)
    stages = [
        nn.Sequential(nn.Conv2d(c, w, 3, s, 1), nn.BatchNorm2d(w), nn.ReLU())
        for c, w, s in zip(channels, widths, strides, strict=False)
    ]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 5))


def mimkd(tiny_net, tiny_task, teacher=None, names="0,1,2,3", **keywords):
    student = Taps(tiny_net, example=tiny_task.example)
    taught_by = Teacher(Taps(teacher or network(), names, example=tiny_task.example))
    torch.manual_seed(0)
    return METHODS["mimkd"](student, taught_by, tiny_task, **keywords).train()


class Alike(nn.Module):
    """Stands in for an encoder."""

    def forward(self, x):
        return x


def plain(all_cells=False, width=1) -> DotLoss:
    """The loss of cells as they are."""
    loss = DotLoss(1, 1, width, hidden=False, all_cells=all_cells)
    loss.encode_student = loss.encode_teacher = Alike()
    return loss


def softplus(x):
    return np.logaddexp(0, x)


def scores_of(loss: DotLoss, s: torch.Tensor, t: torch.Tensor) -> np.ndarray:
    """[image, cell, other image, its cell], with the loss's own encoders."""
    with torch.no_grad():
        student_codes, teacher_codes = (
            encode(x.flatten(2).transpose(1, 2)).double().numpy()
            for encode, x in ((loss.encode_student, s), (loss.encode_teacher, t))
        )
    return np.einsum("ipu,jqu->ipjq", student_codes, teacher_codes) / math.sqrt(loss.width)


def test_two_images_by_hand():
    """Scores a, b, c, d of a 2 × 2 table: the mean over negatives is over two, not four."""
    student, teacher = torch.tensor([[2.0], [-0.5]]), torch.tensor([[3.0], [1.0]])
    a, b, c, d = 6.0, 2.0, -1.5, -0.5
    want = (softplus(b) + softplus(c)) / 2 + (softplus(-a) + softplus(-d)) / 2
    loss = plain()(student[..., None, None], teacher[..., None, None], SHIFT)
    assert loss.item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("all_cells", [False, True])
def test_cells_against_cells_equals_numpy(all_cells):
    torch.manual_seed(0)
    s, t = torch.randn(5, 6, 3, 2), torch.randn(5, 9, 3, 2)
    loss = DotLoss(6, 9, 16, hidden=False, all_cells=all_cells)
    scores = scores_of(loss, s, t)
    positive, negative = [], []
    for i in range(5):
        for p in range(6):
            positive.append(scores[i, p, i, p])
            for j in range(5):
                cells = range(6) if all_cells else [p]
                negative += [scores[i, p, j, q] for q in cells if j != i]
    want = softplus(np.array(negative)).mean() + softplus(-np.array(positive)).mean()
    assert loss(s, t, SHIFT).item() == pytest.approx(want, rel=1e-5)


def test_cells_against_a_vector_equals_numpy():
    torch.manual_seed(0)
    s, t = torch.randn(5, 6, 3, 2), torch.randn(5, 9, 1, 1)
    loss = DotLoss(6, 9, 16, hidden=True)
    scores = scores_of(loss, s, t)[..., 0]  # image, cell, other image
    own = np.eye(5, dtype=bool)
    positive = scores.swapaxes(1, 2)[own]
    negative = scores.swapaxes(1, 2)[~own]
    want = softplus(negative).mean() + softplus(-positive).mean()
    assert loss(s, t, SHIFT).item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("critic", ["separable", "concat"])
def test_shared_critics_meet_another_image_at_the_same_place(critic):
    """Each place alone, as a pair of vectors, and the mean of all."""
    torch.manual_seed(0)
    s, t = torch.randn(4, 6, 2, 3), torch.randn(4, 9, 2, 3)
    loss = critic_loss(6, 9, critic, 8, cellwise=True, all_cells=False)
    inner = loss.critic.local_critic
    shift = torch.tensor(3)
    positive, negative = [], []
    for y in range(2):
        for x in range(3):
            at = s[:, :, y, x, None, None], t[:, :, y, x]
            scores = inner(*at, shift)
            positive.append(scores.positive.flatten())
            negative.append(scores.negative.flatten())
    want = F.softplus(torch.cat(negative)).mean() + F.softplus(-torch.cat(positive)).mean()
    torch.testing.assert_close(loss(s, t, shift), want)


@pytest.mark.parametrize("critic", ["dot", "separable", "concat"])
def test_silent_critics_are_at_chance(critic, tiny_net, tiny_task, batch, progress):
    method = mimkd(tiny_net, tiny_task, critic=critic, critic_width=16, feature_critic_width=8)
    with torch.no_grad():
        for parameter in method.critics.parameters():
            parameter.zero_()
    monitors = method(batch, progress).monitors
    assert monitors.keys() == set(TERMS)
    for value in monitors.values():
        assert value.item() == pytest.approx(2 * math.log(2), rel=1e-6)


def test_scores_are_scaled():
    """Independent codes of unit variance: E[sp(z)] twice is 1.61; unscaled it would be above 5."""
    torch.manual_seed(0)
    loss = DotLoss(64, 96, 512, hidden=True)
    s, t = torch.randn(64, 64, 1, 1), torch.randn(64, 96, 1, 1)
    assert 1.38 < loss(s, t, SHIFT).item() < 2.5
    wide = scores_of(loss, s, t) * math.sqrt(512)
    own = np.eye(64, dtype=bool)
    scores = wide[:, 0, :, 0]
    assert softplus(scores[~own]).mean() + softplus(-scores[own]).mean() > 5


def test_first_batch_is_near_chance(tiny_net, tiny_task, batch, progress):
    for value in mimkd(tiny_net, tiny_task)(batch, progress).monitors.values():
        assert 1.2 < value.item() < 2.5


def test_equal_features_beat_shuffled_ones():
    torch.manual_seed(0)
    loss = DotLoss(16, 16, 64, hidden=True)
    loss.encode_teacher = loss.encode_student
    x = torch.randn(12, 16, 2, 2)
    matched = loss(x, x, SHIFT)
    assert matched < 0.95 * loss(x, x.roll(1, 0), SHIFT)


def test_a_teacher_that_is_moved_by_a_cell_fits_less():
    torch.manual_seed(0)
    loss = DotLoss(8, 8, 32, hidden=False)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    for _ in range(150):
        x = torch.randn(16, 8, 4, 4)
        optimizer.zero_grad()
        loss(x, x.flip(1), SHIFT).backward()
        optimizer.step()
    x = torch.randn(64, 8, 4, 4)
    with torch.no_grad():
        there, moved = (loss(x, t, SHIFT).item() for t in (x.flip(1), x.flip(1).roll(1, 3)))
    assert there < 0.9
    assert moved > CHANCE


def test_order_of_channels_does_not_matter():
    torch.manual_seed(0)
    loss, s, t = DotLoss(8, 6, 32, hidden=False), torch.randn(5, 8, 2, 2), torch.randn(5, 6, 2, 2)
    before = loss(s, t, SHIFT)
    order = torch.randperm(8)
    with torch.no_grad():
        loss.encode_student.shortcut.weight.copy_(loss.encode_student.shortcut.weight[:, order])
    torch.testing.assert_close(loss(s[:, order], t, SHIFT), before)


def sized(*sides):
    return [(8, side, side) for side in sides]


@pytest.mark.parametrize(
    ("student", "teacher", "want"),
    [
        (sized(32, 16, 8, 4), sized(32, 16, 8, 4), [(1, 1), (2, 2)]),
        (sized(32, 16, 8), sized(32, 16, 8, 4), [(1, 1)]),
        (sized(32, 16, 8, 4), sized(32, 8, 4), [(1, 1), (2, 1)]),  # next fewer
        (sized(16, 8, 4, 2), sized(64, 32, 16), [(1, 2), (2, 2)]),  # none has fewer
        (sized(16, 8), sized(8, 4), [(0, 0)]),
        (sized(8), sized(8, 8, 8), [(0, 0)]),
        (sized(32, 16, 8, 8), sized(32, 16, 8, 8), [(1, 1), (2, 2)]),  # the last is no deeper
        (sized(4, 4, 4, 4), sized(4, 4, 4, 4, 4, 4, 4), [(1, 2), (2, 4)]),  # by depth alone
        ([(8, 64, 1), (8, 16, 1), (8, 4, 1)], sized(8, 4, 2), [(1, 1)]),  # tokens and maps
    ],
)
def test_stages_that_are_compared(student, teacher, want):
    assert stage_pairs(student, teacher) == want


shapes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(shapes, min_size=1, max_size=5),
    st.lists(shapes, min_size=1, max_size=5),
    st.sampled_from(["dot", "separable", "concat"]),
)
def test_any_shapes_and_any_number_of_taps(student_shapes, teacher_shapes, critic):
    class Given(nn.Module):
        """A network whose stages have these shapes."""

        def __init__(self, given):
            super().__init__()
            self.stages = nn.ModuleList(nn.Conv2d(2, c, 1) for c, _, _ in given)
            self.fc, self.sizes = nn.Linear(given[-1][0], 5), [size for _, *size in given]
            self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(size) for size in self.sizes)
            self.taps = nn.ModuleList(nn.ReLU() for _ in given)

        def forward(self, x):
            for stage, pool, tap in zip(self.stages, self.pools, self.taps, strict=True):
                last = tap(stage(pool(x)))
            return self.fc(last.mean((2, 3)))

    torch.manual_seed(0)
    task = Classification("abcde", torch.zeros(2, 2, 8, 8))
    student, teacher = (
        Taps(Given(given), [f"taps.{i}" for i in range(len(given))], example=task.example)
        for given in (student_shapes, teacher_shapes)
    )
    try:
        method = METHODS["mimkd"](
            student, Teacher(teacher), task, critic=critic, critic_width=8, feature_critic_width=8
        )
    except ConfigError as error:  # a single column beside a map
        assert "places in the image are unknown" in str(error)  # noqa: PT017
        return
    progress = Progress(*map(torch.tensor, (0, 0, 3, 10)))
    step = method(Batch(torch.randn(4, 2, 8, 8), torch.arange(4), torch.arange(4)), progress)
    step.total.backward()
    assert torch.isfinite(step.total)
    assert len(step.losses) == 3 + max(1, len(student_shapes) - 2)


def reached(loss, *tensors):
    grads = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
    return [g is not None and g.abs().sum().item() > 0 for g in grads]


@pytest.mark.parametrize("critic", ["dot", "separable", "concat"])
def test_what_each_term_trains(critic, tiny_net, tiny_task, batch, progress):
    method = mimkd(tiny_net, tiny_task, critic=critic, critic_width=16, feature_critic_width=16)
    losses = method(batch, progress).losses
    trunk = [tiny_net.get_submodule(f"stage{n}")[0].weight for n in (1, 2, 3, 4)]
    depth = {"global": 4, "local": 4, "feature/2": 2, "feature/3": 3}
    for name in TERMS:
        want = [n <= depth[name] for n in (1, 2, 3, 4)] + [False]  # never the classifier
        assert reached(losses[name], *trunk, tiny_net.fc.weight) == want
        for other in TERMS:
            parameters = list(method.critics[other].parameters())
            assert set(reached(losses[name], *parameters)) == {name == other}


def test_teacher_stays_as_it_is(tiny_net, tiny_task, batch, progress):
    teacher = network()
    method = mimkd(tiny_net, tiny_task, teacher)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1, weight_decay=0.1)
    for step in range(10):
        method.train()
        optimizer.zero_grad()
        method(batch, progress._replace(step=torch.tensor(step))).total.backward()
        optimizer.step()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_student_leaves_without_critics(tiny_net, tiny_task):
    keys = set(tiny_net.state_dict())
    method = mimkd(tiny_net, tiny_task)
    assert list(method.predictors()) == ["student"]
    assert set(method.predictors()["student"].state_dict()) == keys


def test_critics_have_the_sizes_that_follow_from_their_design():
    def size(*args, **keywords):
        return sum(p.numel() for p in DotLoss(*args, **keywords).parameters())

    layers = 512 * 512 + 512 + 512 * 512 + 512 + 2048 * 512 + 512 + 512 * 512 + 512
    assert size(512, 2048, 512, hidden=True) == layers + 512 * 512 + 512 + 2048 * 512 + 512
    assert size(128, 512, 128, hidden=False) == 128 * 128 + 128 + 512 * 128 + 128


def test_terms_without_weight_are_left_out(tiny_net, tiny_task, batch, progress):
    alone = mimkd(tiny_net, tiny_task, global_weight=0.0, local_weight=0.0, feature_weight=0.0)
    assert len(alone.critics) == 0
    losses = alone(batch, progress).losses
    assert losses.keys() == {"task"}
    ce = F.cross_entropy(tiny_net(batch.inputs), batch.targets)
    torch.testing.assert_close(losses["task"], ce)


def test_soft_term_is_distillation_of_logits(tiny_net, tiny_task, batch, progress):
    method = mimkd(tiny_net, tiny_task, soft_weight=0.5)
    step = method(batch, progress)
    log_probabilities = (step.outputs / 4).log_softmax(1)
    kl = F.kl_div(
        log_probabilities, (method.teacher(batch.inputs) / 4).softmax(1), reduction="batchmean"
    )
    torch.testing.assert_close(step.losses["soft"], 0.5 * 16 * kl)


def test_rolled_negatives_are_drawn_anew_each_step(tiny_net, tiny_task, batch, progress):
    method = mimkd(tiny_net, tiny_task, critic="concat", critic_width=16).eval()
    losses = {
        round(
            method(batch, progress._replace(step=torch.tensor(i))).monitors["feature/2"].item(), 7
        )
        for i in range(12)
    }
    assert len(losses) > 1


def test_diagnosis_names_terms_at_chance(tiny_net, tiny_task):
    method = mimkd(tiny_net, tiny_task, local_weight=0.0)
    warnings = method.diagnose({"global": 1.386, "feature/2": 0.7, "feature/3": 1.40})
    assert warnings.keys() == {"global", "feature/3"}
    assert "chance" in warnings["global"]
    assert method.diagnose({"local": CHANCE}) == {}  # it has no such term


@pytest.mark.parametrize("critic", ["separable", "concat"])
def test_all_places_want_a_dot_product(critic, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="critic='dot'"):
        mimkd(tiny_net, tiny_task, critic=critic, feature_negatives="all")


def test_critics_by_name():
    assert isinstance(critic_loss(3, 4, "dot", 8, cellwise=False, all_cells=True), DotLoss)
    assert not critic_loss(3, 4, "dot", 8, cellwise=False, all_cells=True).all_cells
    assert isinstance(critic_loss(3, 4, "concat", 8, cellwise=True, all_cells=False), CellLoss)


def test_defaults_and_evidence():
    cls = METHODS["mimkd"]
    assert cls.provenance is Provenance.ABSTRACT
    assert cls.needs.batch == 2
    defaults = {o.name: o.default for o in options(cls).values()}
    assert defaults == {
        "global_weight": 0.5,
        "local_weight": 0.5,
        "feature_weight": 0.5,
        "soft_weight": 0.0,
        "temperature": 4.0,
        "critic": "dot",
        "critic_width": 512,
        "feature_critic_width": 128,
        "feature_negatives": "same",
    }
    assert all(option.meaning for option in options(cls).values())


@pytest.mark.parametrize("warmup_steps", [0, 16])
def test_terms_do_not_rise_in_the_first_steps(warmup_steps, tiny_net, tiny_task):
    """Features have a large common part, by which all scores would rise together."""
    method = mimkd(tiny_net, tiny_task)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1, momentum=0.9, nesterov=True)
    losses = []
    for step in range(20):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * min(1, (step + 1) / max(warmup_steps, 1))
        images = torch.randn(64, 3, 16, 16, generator=generator)
        images += torch.randn(64, 3, 1, 1, generator=generator)
        now = Progress(*map(torch.tensor, (0, 0, step, 1000)))
        output = method(Batch(images, torch.arange(64) % 5, torch.arange(64)), now)
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        losses.append(torch.stack(list(output.monitors.values())))
    assert torch.stack(losses).max() < 2.5
    assert losses[-1].mean() < CHANCE - 0.03
