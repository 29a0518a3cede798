"""Feature distillation against numpy and scipy, what it learns from, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_pairs import STAGES, offline, teacher_net
from torch import Tensor, nn

from selfdistill import wrap
from selfdistill.core import ConfigError
from selfdistill.methods.feature_kd import match_loss
from selfdistill.tasks import Embedding
from selfdistill.tasks.embedding import standardized


def array(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def cosine(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    norms = np.linalg.norm(x, axis=axis) * np.linalg.norm(y, axis=axis)
    return (x * y).sum(axis) / norms


def huber(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


@pytest.fixture
def embedding() -> Embedding:
    return Embedding([str(i) for i in range(24)], torch.zeros(2, 3, 16, 16))


def student_net(tiny_net: nn.Module, width: int = 24) -> nn.Module:
    student = copy.deepcopy(tiny_net)
    student.fc = nn.Linear(student.fc.in_features, width)
    return student


def test_distance_of_maps_equals_numpy():
    x, y = np.random.default_rng(0).normal(size=(2, 3, 7, 2, 5))
    places = cosine(x, y, 1)  # (3, 2, 5)
    want = 0.9 * (1 - places.mean()) + 0.1 * huber(x - y).mean()
    assert match_loss(*map(torch.tensor, (x, y)), 0.9).item() == pytest.approx(want, rel=1e-5)


@given(st.integers(0, 1000), st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_direction_alone_counts_at_a_fraction_of_one(seed, scale):
    x, y = torch.randn(2, 2, 5, 3, 3, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(match_loss(scale * x, y, 1.0), match_loss(x, y, 1.0))
    assert match_loss(scale * x, x, 1.0).abs() < 1e-5


@pytest.mark.parametrize("stages", ["last", "all"])
def test_terms_equal_numpy(tiny_net, embedding, batch, progress, stages):
    student = student_net(tiny_net)
    method = offline("feature-kd", student, embedding, stages=stages, cosine_fraction=0.7)
    method.summary_norm.train()
    method.norms.train()
    losses = method(batch, progress).losses
    _, theirs = method.teacher.forward_features(batch.inputs)
    outputs, own = method.student.forward_features(batch.inputs)
    pooled = array(theirs["stage4"]).mean((2, 3))
    summary = (pooled - pooled.mean(0)) / np.sqrt(pooled.var(0) + 1e-12)
    want = {"summary": 1 - cosine(array(outputs), summary, 1).mean()}
    for number, name in enumerate(STAGES if stages == "all" else STAGES[-1:], 1):
        target, weight = array(theirs[name]), method.projections[number - 1]
        assert target.shape[2:] == own[name].shape[2:]
        mean, variance = target.mean((0, 2, 3)), target.var((0, 2, 3))
        scaled = (target - mean[:, None, None]) / np.sqrt(variance + 1e-12)[:, None, None]
        kernel = array(weight.weight)[:, :, 0, 0]
        mapped = np.einsum("dc,bchw->bdhw", kernel, array(own[name]))
        mapped += array(weight.bias)[:, None, None]
        similar = cosine(mapped, scaled, 1).mean()
        want[f"spatial/{number}"] = 0.7 * (1 - similar) + 0.3 * huber(mapped - scaled).mean()
    assert losses.keys() == want.keys()
    for name, value in want.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name


def test_maps_of_other_sizes_are_averaged_to_the_smaller(tiny_net, embedding, batch, progress):
    teacher = teacher_net(strides=(1, 2, 1, 1))  # 8 × 8 at the end, and the student 2 × 2
    method = offline("feature-kd", student_net(tiny_net), embedding, teacher)
    assert method.teacher.shapes["stage4"][1:] != method.student.shapes["stage4"][1:]
    assert torch.isfinite(method(batch, progress).total)


def test_a_student_that_gives_the_standardized_feature_has_no_summary_loss(embedding):
    x = torch.randn(6, 24, generator=torch.Generator().manual_seed(0)) * 5 + 3
    target = standardized(x)
    np.testing.assert_allclose(array(target).mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(array(target).std(0), 1, rtol=1e-5)
    assert embedding.loss(3 * target, target).abs() < 1e-6
    metric = embedding.metric()
    metric.update(3 * target[:4], target[:4])
    metric.update(-target[4:], target[4:])
    assert metric.compute()["similarity"].item() == pytest.approx((4 - 2) / 6, abs=1e-6)
    assert torch.equal(standardized(torch.ones(3, 2)), torch.zeros(3, 2))


def test_weights_scale_their_terms(tiny_net, embedding, batch, progress):
    plain, heavy = (
        offline("feature-kd", student_net(tiny_net), embedding, **weights)
        for weights in ({}, {"summary_weight": 3.0, "spatial_weight": 0.5})
    )
    heavy.load_state_dict(plain.state_dict())
    one, other = plain(batch, progress).losses, heavy(batch, progress).losses
    torch.testing.assert_close(other["summary"], 3 * one["summary"])
    torch.testing.assert_close(other["spatial/1"], one["spatial/1"] / 2)


def test_no_label_is_read(tiny_net, embedding, batch, progress):
    method = offline("feature-kd", student_net(tiny_net), embedding)
    with_labels = method(batch, progress).total
    assert torch.equal(with_labels, method(batch._replace(targets=None), progress).total)


def test_the_teachers_pooled_feature_is_its_class_token(progress):
    import timm

    settings = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 2}
    torch.manual_seed(0)
    teacher = timm.create_model("vit_tiny_patch16_224", num_classes=0, **settings).eval()
    images = torch.randn(4, 3, 16, 16)
    student = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 24),
    )  # fmt: skip
    criterion = wrap(
        student, "feature-kd", example=images[:2], classes=24, task="embedding", taps="2,4",
        teacher=teacher,
    )  # fmt: skip
    loss = criterion(images, None)
    loss.backward()
    pooled = array(teacher.forward_features(images)[:, 0])
    summary = (pooled - pooled.mean(0)) / np.sqrt(pooled.var(0) + 1e-12)
    want = 1 - cosine(array(student(images)), summary, 1).mean()
    assert criterion.last.losses["summary"].item() == pytest.approx(want, rel=1e-3)
    assert criterion.method.teacher.shapes["norm"] == (24, 4, 4)  # without the class token
    with pytest.raises(ConfigError, match="have no labels, so give None"):
        criterion(images, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"summary_weight": 0.0}, "summary_weight=0 must be above 0"),
        ({"summary_weight": float("nan")}, "summary_weight=nan must be above 0"),
        ({"spatial_weight": -1.0}, "spatial_weight=-1 0 or more"),
        ({"spatial_weight": float("inf")}, "spatial_weight=inf 0 or more"),
        ({"cosine_fraction": 1.5}, "a fraction in 0 … 1"),
        ({"cosine_fraction": -0.1}, "a fraction in 0 … 1"),
        ({"cosine_fraction": float("nan")}, "a fraction in 0 … 1"),
    ],
)
def test_weights_out_of_range(tiny_net, embedding, options, words):
    with pytest.raises(ConfigError, match=words):
        offline("feature-kd", student_net(tiny_net), embedding, **options)


def test_a_student_of_another_width(tiny_net):
    narrow = Embedding(list("abcde"), torch.zeros(2, 3, 16, 16))
    with pytest.raises(ConfigError, match="build the student with num_classes=24"):
        offline("feature-kd", copy.deepcopy(tiny_net), narrow)


def test_all_stages_must_be_as_many(tiny_net, embedding):
    with pytest.raises(ConfigError, match="student has 2 taps and teacher 4"):
        offline("feature-kd", student_net(tiny_net), embedding, taps=STAGES[2:], stages="all")


def test_the_task_refuses_outputs_and_targets_of_another_form(tiny_net, embedding):
    with pytest.raises(ConfigError, match="num_classes=24"):
        embedding.check_output(tiny_net, torch.zeros(2, 5))
    with pytest.raises(ConfigError, match="not a tensor"):
        embedding.check_output(tiny_net, [torch.zeros(2, 24)])
    embedding.check_targets(None, 4)
    embedding.check_targets(torch.zeros(4, 24), 4)
    for wrong in (torch.zeros(4), torch.zeros(3, 24), [1, 2, 3, 4]):
        with pytest.raises(ConfigError, match="have no labels"):
            embedding.check_targets(wrong, 4)
