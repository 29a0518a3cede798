"""AICSD against golden numbers and scipy, its growing weight, and whom it does not serve."""

import numpy as np
import pytest
import torch
from scene_pairs import SIDE, scene_batch, scene_net, scene_task
from scipy.special import rel_entr, softmax

from selfdistill.core import IGNORE, METHODS, ConfigError, Frozen, Progress, Provenance, options
from selfdistill.methods.aicsd import interclass_similarity, pooled, similarity_distance
from selfdistill.recipe.build_method import build_method
from selfdistill.tasks import Classification, Segmentation


def aicsd(teacher=None, **chosen):
    student = scene_net()
    teacher = Frozen(teacher or scene_net((8, 10, 12, 16), seed=7))
    return METHODS["aicsd"](student, teacher, scene_task(), **chosen)


def at(step: int, total: int = 120) -> Progress:
    return Progress(*(torch.tensor(n) for n in (0, 0, step, total)))


def divergences(scores: np.ndarray) -> np.ndarray:
    """(K, N) -> (K, K), one pair after the other."""
    shares = softmax(scores, axis=1)
    return np.array([[rel_entr(p, q).sum() for q in shares] for p in shares])


def unit_rows(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_golden_matrix():
    rows = [[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 1]]
    want = np.array([[0, 1.229959, 0.895615], [1.229959, 0, 0.895615], [0.796461, 0.796461, 0]])
    np.testing.assert_allclose(divergences(np.array(rows)), want, atol=1e-6)
    matrix = interclass_similarity(torch.tensor(rows).reshape(1, 3, 2, 2))[0]
    np.testing.assert_allclose(matrix.numpy(), unit_rows(want), atol=1e-6)


def test_similarities_equal_scipy_and_have_unit_rows():
    torch.manual_seed(0)
    scores = 2 * torch.randn(3, 5, 4, 6)
    want = np.stack([unit_rows(divergences(z.flatten(1).double().numpy())) for z in scores])
    matrices = interclass_similarity(scores)
    np.testing.assert_allclose(matrices.numpy(), want, atol=1e-5)
    torch.testing.assert_close(matrices.norm(dim=2), torch.ones(3, 5))
    assert (matrices > -1e-6).all()
    assert matrices.diagonal(dim1=1, dim2=2).abs().max() < 1e-6


def test_a_constant_on_a_classes_scores_changes_nothing():
    torch.manual_seed(0)
    scores = torch.randn(2, 4, 5, 5)
    shifted = scores + torch.tensor([3.0, -1, 0, 5])[:, None, None]
    torch.testing.assert_close(interclass_similarity(shifted), interclass_similarity(scores))


def test_classes_seen_alike_have_a_bounded_gradient():
    scores = torch.zeros(1, 4, 4, 4, requires_grad=True)
    interclass_similarity(scores + 1e-9 * torch.randn(4, 4)).square().sum().backward()
    assert torch.isfinite(scores.grad).all()


@pytest.mark.filterwarnings("error")
def test_void_places_do_not_count():
    torch.manual_seed(0)
    scores, reference = torch.randn(2, 3, 5, 6, 8, dtype=torch.float64)
    mask = torch.ones(3, 6, 8, dtype=torch.bool)
    mask[0, :, 4:] = False  # half of the first image
    mask[2] = False  # all of the last
    scores.requires_grad_()
    found = similarity_distance(scores, reference, mask)
    (gradient,) = torch.autograd.grad(found, scores)
    halves = (x[:1, :, :, :4] for x in (scores, reference))
    wholes = (x[1:2] for x in (scores, reference))
    squares = [
        (interclass_similarity(a) - interclass_similarity(b)).square().mean()
        for a, b in (halves, wholes)
    ]
    torch.testing.assert_close(found, sum(squares) / 2)
    assert (gradient[0, :, :, :4] != 0).all()
    assert (gradient[0, :, :, 4:] == 0).all()
    assert (gradient[2] == 0).all()


@pytest.mark.filterwarnings("error")
def test_a_place_counts_as_far_as_it_is_labeled():
    torch.manual_seed(0)
    scores = torch.randn(1, 4, 1, 3, dtype=torch.float64)
    weight = torch.tensor([[[0.5, 0.0, 1.0]]], dtype=torch.float64)
    shares = softmax(scores.flatten(2).numpy()[0], axis=1) * weight.flatten().numpy()
    shares /= shares.sum(1, keepdims=True)
    want = np.array([[rel_entr(p, q).sum() for q in shares] for p in shares])
    matrix = interclass_similarity(scores, weight)[0]
    np.testing.assert_allclose(matrix.numpy(), unit_rows(want), atol=1e-6)
    everywhere = torch.ones(1, 1, 3, dtype=torch.float64)
    plain = interclass_similarity(scores)
    torch.testing.assert_close(interclass_similarity(scores, everywhere), plain)
    torch.testing.assert_close(interclass_similarity(scores, 0 * everywhere), plain)


def test_no_label_at_all_costs_nothing():
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    found = similarity_distance(scores, scores.detach(), torch.zeros(2, 8, 8, dtype=torch.bool))
    found.backward()
    assert found.item() == 0
    assert (scores.grad == 0).all()


def test_terms_equal_scipy():
    method, batch = aicsd(), scene_batch()
    losses = method(batch, at(30)).losses  # a quarter of the run
    with torch.no_grad():
        outputs = [method.student(batch.inputs), method.teacher(batch.inputs)]
    task = scene_task()
    assert losses["task"].item() == pytest.approx(
        0.25 * task.loss(outputs[0], batch.targets).item()
    )
    flat = [z.flatten(2).double().numpy() for z in outputs]
    valid = (batch.targets != IGNORE).numpy()  # of a coarse cell, the share of its pixels counts
    side, cell = outputs[0].shape[-1], valid.shape[-1] // outputs[0].shape[-1]
    weights = valid.reshape(-1, side, cell, side, cell).mean((2, 4)).reshape(len(valid), -1)
    with np.errstate(divide="ignore"):
        counted = [z + np.log(weights)[:, None] for z in flat]
    student, teacher = (np.stack([unit_rows(divergences(z)) for z in scores]) for scores in counted)
    want = 0.25 * 100 * ((student - teacher) ** 2).mean()
    assert losses["similarity"].item() == pytest.approx(want, rel=4e-3)  # small differences, fp32
    p, q = (softmax(z, axis=1) for z in reversed(flat))
    want = 0.75 * 0.5 * np.average(rel_entr(p, q).sum(1), weights=weights)
    assert losses["soft"].item() == pytest.approx(want, rel=1e-4)


def test_equal_scores_cost_nothing():
    losses = aicsd(scene_net()).eval()(scene_batch(), at(60)).losses
    assert losses["similarity"].item() == pytest.approx(0, abs=1e-6)
    assert losses["soft"].item() == pytest.approx(0, abs=1e-6)


def test_begins_with_the_teacher_and_ends_with_the_labels():
    method, batch = aicsd().eval(), scene_batch()
    first, middle, last = (method(batch, at(step)).losses for step in (0, 60, 119))
    assert first["task"] == first["similarity"] == 0
    assert first["soft"] > 0
    for name in ("task", "similarity"):
        assert last[name].item() / middle[name].item() == pytest.approx(119 / 60, rel=1e-4)
    assert last["soft"].item() / first["soft"].item() == pytest.approx(1 / 120, rel=1e-3)


def test_constant_is_the_plain_sum():
    method, batch = (
        aicsd(weighting="constant", similarity_weight=100.0, soft_weight=2.0).eval(),
        scene_batch(),
    )
    first, last = (method(batch, at(step)).losses for step in (0, 119))
    torch.testing.assert_close(first, last)
    task = scene_task().loss(method.student(batch.inputs), batch.targets)
    torch.testing.assert_close(first["task"], task)


def test_terms_without_weight_are_left_out():
    batch = scene_batch()
    assert aicsd(similarity_weight=0.0)(batch, at(1)).losses.keys() == {"task", "soft"}
    assert aicsd(soft_weight=0.0)(batch, at(1)).losses.keys() == {"task", "similarity"}


def test_large_scores_are_averaged_down():
    scores = torch.arange(64.0).reshape(1, 1, 8, 8)
    want = scores.numpy().reshape(4, 2, 4, 2).mean((1, 3))
    np.testing.assert_allclose(pooled(scores, 4)[0, 0].numpy(), want)
    assert torch.equal(pooled(scores, 64), scores)
    assert pooled(torch.zeros(1, 2, 100, 8), 16).shape == (1, 2, 16, 8)


def test_the_same_under_bf16():
    method, batch = aicsd().eval(), scene_batch()
    with torch.no_grad():
        scores = method.student(batch.inputs)
    want = interclass_similarity(scores)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(interclass_similarity(scores), want)


def test_whom_it_does_not_serve_in_a_sentence(tiny_net, tiny_task):
    message = (
        "'aicsd' compares the scores of an image's places, which classification has not; `self"
    )
    with pytest.raises(ConfigError, match=message):
        build_method("aicsd", tiny_net, tiny_task, teacher=tiny_net)
    two = Segmentation("ab", torch.zeros(2, 3, SIDE, SIDE))
    with pytest.raises(ConfigError, match="three classes or more, not 2; set similarity_weight=0"):
        METHODS["aicsd"](scene_net(), scene_net(), two)
    METHODS["aicsd"](scene_net(), scene_net(), two, similarity_weight=0.0)
    with pytest.raises(ConfigError, match="grid_size=0 leaves no position"):
        aicsd(grid_size=0)
    assert not Classification.dense_scores


def test_defaults_and_evidence():
    defaults = {o.name: o.default for o in options(METHODS["aicsd"]).values()}
    assert defaults == {
        "similarity_weight": 100.0, "soft_weight": 0.5, "temperature": 1.0, "weighting": "adaptive",
        "grid_size": 64,
    }  # fmt: skip
    assert METHODS["aicsd"].provenance is Provenance.NOTES
