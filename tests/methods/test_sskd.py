"""SSKD and its teacher against numpy, the rows that count, and what neither may train."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from selfdistill.core import METHODS, Batch, ConfigError, Frozen
from selfdistill.methods.sskd import answer_ranks, best_ranked
from selfdistill.modules.rotations import turned
from selfdistill.modules.view_similarity import ViewSimilarity
from selfdistill.taps import Taps
from selfdistill.tasks import Classification


@pytest.fixture
def views(batch) -> Batch:
    generator = torch.Generator().manual_seed(2)
    others = tuple(torch.randn(8, 3, 16, 16, generator=generator) for _ in range(3))
    return batch._replace(views=others)


def wide(tiny_task) -> nn.Module:
    torch.manual_seed(5)
    conv = nn.Sequential(nn.Conv2d(3, 10, 3, 4), nn.BatchNorm2d(10), nn.ReLU())
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5))


def teacher(tiny_task, backbone="frozen"):
    taps = Taps(wide(tiny_task), ["0"], example=tiny_task.example)
    return METHODS["sskd-teacher"](taps, tiny_task, backbone=backbone)


def sskd(tiny_net, tiny_task, **options):
    torch.manual_seed(0)
    student = Taps(tiny_net, example=tiny_task.example)
    return METHODS["sskd"](student, Frozen(teacher(tiny_task)), tiny_task, **options)


def test_rows_that_count_are_those_of_the_authors_code():
    ranks = torch.tensor([0, 3, 0, 1, 7, 2])
    assert best_ranked(ranks, 0.75).nonzero().flatten().tolist() == [0, 1, 2, 3, 5]
    assert best_ranked(ranks, 1.0).sum() == 6
    assert best_ranked(ranks, 0.0).nonzero().flatten().tolist() == [0, 2]
    assert best_ranked(torch.zeros(4), 0.5).sum() == 4
    assert best_ranked(torch.ones(5), 0.5).tolist() == [1, 1, 0, 0, 0]


def test_ranks_are_places_in_a_sorted_row():
    scores = np.random.default_rng(0).normal(size=(20, 7))
    answers = np.arange(20) % 7
    want = [int((-row).argsort().tolist().index(a)) for row, a in zip(scores, answers, strict=True)]
    ranks = answer_ranks(torch.tensor(scores), torch.tensor(answers))
    assert ranks.tolist() == want


def test_similarities_are_cosines_of_turned_with_plain_images():
    torch.manual_seed(0)
    module, pooled = ViewSimilarity(6), torch.randn(12, 6)
    with torch.no_grad():
        e, got = module.layers(pooled).numpy(), module(pooled).numpy()
    for row in range(9):
        for column in range(3):
            a, b = e[3 + row], e[column]
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            assert got[row, column] == pytest.approx(cosine, abs=1e-6)


def test_views_are_turned_one_after_another():
    images = [torch.randn(2, 3, 4, 4) for _ in range(4)]
    both = turned(images)
    for k in range(4):
        want = np.rot90(images[k].numpy(), k, axes=(2, 3))
        np.testing.assert_array_equal(both[2 * k : 2 * k + 2].numpy(), want)


def divergence(student, reference, temperature, rows):
    s, t = student / temperature, reference / temperature
    p, logs = softmax(t, 1), log_softmax(t, 1) - log_softmax(s, 1)
    return (p * logs).sum(1)[rows].mean() * temperature**2


def test_terms_equal_numpy(tiny_net, tiny_task, views, progress):
    method = sskd(tiny_net, tiny_task).eval()
    inputs = torch.cat([x.rot90(k, (2, 3)) for k, x in enumerate((views.inputs, *views.views))])
    with torch.no_grad():
        losses = method(views, progress).losses
        z, _, pooled = method.student.forward_pooled(inputs)
        own = method.similarity(pooled).double().numpy()
        z_t, a_t = (x.double().numpy() for x in method.teacher.network.knowledge(inputs))
    z = z.double().numpy()
    labels = views.targets.numpy()
    assert float(losses["task"]) == pytest.approx(
        -0.1 * log_softmax(z[:8], 1)[np.arange(8), labels].mean(), rel=1e-5
    )
    everything = np.arange(8)
    want = {"soft": 0.9 * divergence(z[:8], z_t[:8], 4, everything)}
    want["turned"] = 2.7 * divergence(z[8:], z_t[8:], 4, np.arange(24))
    targets = np.tile(np.arange(8), 3)
    places = (a_t > a_t[np.arange(24), targets][:, None]).sum(1)
    order = places.argsort(kind="stable")
    right = int((places == 0).sum())
    rows = order[: right + int(0.75 * (24 - right))]
    want["similarity"] = 10 * divergence(own, a_t, 0.5, rows)
    assert {n: float(losses[n]) for n in want} == pytest.approx(want, rel=1e-3, abs=3e-7)


def test_the_teacher_learns_to_match_and_its_network_stays(tiny_task, views, progress):
    method = teacher(tiny_task).train()
    before = {n: t.clone() for n, t in method.student.state_dict().items()}
    optimizer = torch.optim.Adam(method.param_groups(), lr=0.02)
    same = views._replace(views=tuple(views.inputs for _ in range(3)))
    losses = []
    for _ in range(40):
        step = method(same, progress)
        losses.append(float(step.total.detach()))
        optimizer.zero_grad()
        step.total.backward()
        optimizer.step()
    assert list(step.losses) == ["contrast"]
    assert losses[0] == pytest.approx(np.log(8), abs=0.15)  # as many as there are images
    assert losses[-1] < losses[0] - 0.2
    after = method.student.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)  # batch statistics as well


def test_a_joint_teacher_learns_labels_from_plain_images_alone(tiny_task, views, progress):
    method = teacher(tiny_task, "joint").train()
    outputs = method(views, progress)
    other = views._replace(views=tuple(v + 1 for v in views.views))
    assert set(outputs.losses) == {"contrast", "task"}
    method.eval()
    first, second = (method(b, progress).losses for b in (views, other))
    assert torch.equal(first["task"], second["task"])
    assert not torch.equal(first["contrast"], second["contrast"])


def test_nothing_of_the_teacher_moves(tiny_net, tiny_task, views, progress):
    method = sskd(tiny_net, tiny_task).train()
    before = {n: t.clone() for n, t in method.teacher.state_dict().items()}
    method(views, progress).total.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(torch.equal(before[n], t) for n, t in method.teacher.state_dict().items())


def test_wrong_options(tiny_net, tiny_task):
    for name in ("turned_fraction", "similarity_fraction"):
        with pytest.raises(ConfigError, match=r"in 0 … 1, not 1\.5"):
            sskd(tiny_net, tiny_task, **{name: 1.5})
    weights = ("supervised_weight", "soft_weight", "turned_weight", "similarity_weight")
    with pytest.raises(ConfigError, match="a value above 0"):
        sskd(tiny_net, tiny_task, **dict.fromkeys(weights, 0.0))
    oblong = Classification("abcde", torch.zeros(2, 3, 16, 12))
    with pytest.raises(ConfigError, match="16×12; give image_size"):
        sskd(tiny_net, oblong)
