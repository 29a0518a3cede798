"""KD³ against numpy and the values of its specification, and who learns from what."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_pairs import offline, teacher_net
from torch import Tensor, nn

from selfdistill.core import ConfigError, Progress, trained_state
from selfdistill.methods.kd3 import class_thresholds, mix_distribution, nt_xent, teacher_share


def moment(step: int, total: int = 100) -> Progress:
    return Progress(*map(torch.tensor, (0, step // 10, step, total)))


def array(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


@pytest.mark.parametrize(
    ("epoch", "share"), [(1, 0.992), (60, 0.853), (100, 0.493), (119, 0.268), (120, 0), (200, 0)]
)
def test_the_share_of_the_teacher(epoch, share):
    assert teacher_share((epoch + 1) / 240) == pytest.approx(share, abs=5e-4)


def test_thresholds_of_classes():
    counts = torch.tensor([40, 20, 4, 0])
    want = [0.95, 0.31667, 0.05, 0]
    assert class_thresholds(counts, 0.95).tolist() == pytest.approx(want, abs=1e-4)
    assert class_thresholds(torch.zeros(3), 0.95).tolist() == [0, 0, 0]


@given(st.lists(st.integers(0, 50), min_size=2, max_size=9), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_a_more_frequent_class_has_a_higher_threshold(counts, confidence):
    thresholds = class_thresholds(torch.tensor(sorted(counts)), confidence)
    assert (thresholds.diff() >= -1e-6).all()
    assert 0 <= float(thresholds.min()) <= float(thresholds.max()) <= confidence + 1e-6


def test_contrast_equals_numpy():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 6, 5))
    rows = np.concatenate([a, b])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    total = 0.0
    for i, row in enumerate(rows):
        similarities = rows @ row / 0.3
        others = np.delete(np.exp(similarities), i).sum()
        total -= np.log(np.exp(similarities[(i + 6) % 12]) / others) / 12
    ours = nt_xent(torch.tensor(a), torch.tensor(b), 0.3)
    assert ours.item() == pytest.approx(total, rel=1e-5)


def test_mixed_images_have_mixed_statistics():
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    partners, ratio = torch.tensor([1, 2, 3, 4, 0]), torch.tensor([0.0, 0.25, 0.5, 1.0, 0.9])
    mixed = mix_distribution(x, partners, ratio)
    own, mean, std = array(ratio)[:, None], array(x).mean((2, 3)), array(x).std((2, 3))
    other = partners.numpy()
    want_mean = own * mean + (1 - own) * mean[other]
    want_std = own * std + (1 - own) * std[other]
    np.testing.assert_allclose(array(mixed).mean((2, 3)), want_mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(array(mixed).std((2, 3)), want_std, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[3], x[3])  # all its own
    flat = mix_distribution(torch.zeros(2, 3, 4, 4), torch.tensor([1, 0]), ratio[:2])
    assert torch.isfinite(flat).all()


def test_terms_equal_numpy(tiny_net, tiny_task, batch, progress):
    method = offline("kd3", tiny_net, tiny_task, contrastive_weight=0.5)
    step = method(batch, progress)
    scores, features = method.teacher.forward_features(batch.inputs)
    target = array(features["stage4"])
    plain = method.student.trunk(batch.inputs)
    mapped = array(method.student.transfer(plain))
    classifier = method.teacher.network.network.fc
    outputs = mapped.mean((2, 3)) @ array(classifier.weight).T + array(classifier.bias)
    np.testing.assert_allclose(array(step.outputs), outputs, rtol=1e-4, atol=1e-5)
    assert torch.equal(step.outputs, method.student(batch.inputs))
    weight = 1 / (1 + np.exp(-np.linalg.norm(outputs - array(scores), axis=1)))
    assert (weight > 0.5).all()
    want = (weight[:, None, None, None] * (mapped - target) ** 2).mean()
    assert step.losses["feature"].item() == pytest.approx(want, rel=1e-4)
    mixed = method.student.trunk(method.mixed(batch, progress))
    embeddings = [method.embedding(x.mean((2, 3))) for x in (plain, mixed)]
    assert step.losses["contrastive"].item() == pytest.approx(
        0.5 * nt_xent(*embeddings, 0.3).item(), rel=1e-5
    )


def test_no_label_is_read(tiny_net, tiny_task, batch, progress):
    method = offline("kd3", tiny_net, tiny_task)
    with_labels, without = (method(b, progress) for b in (batch, batch._replace(targets=None)))
    assert with_labels.losses == without.losses


def test_the_classifier_is_the_teachers_stays_and_is_saved(tiny_net, tiny_task, batch, progress):
    method = offline("kd3", tiny_net, tiny_task).train()
    own = method.student.classifier.network
    theirs = method.teacher.network.network.fc
    assert torch.equal(own.weight, theirs.weight)
    method(batch, progress).total.backward()
    assert own.weight.grad is None
    saved = trained_state(method)
    assert torch.equal(saved["student.classifier.network.weight"], theirs.weight)
    assert not [name for name in saved if name.startswith("teacher")]
    other = copy.deepcopy(theirs)
    with torch.no_grad():
        own.weight.add_(1)  # as a loaded run of another teacher would
    assert torch.equal(theirs.weight, other.weight)


def test_who_is_chosen(tiny_net, tiny_task):
    method = offline("kd3", tiny_net, tiny_task)
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(60, 2, 5, generator=generator)
    for step in (0, 30, 70):
        share = teacher_share(step / 100)
        logits = share * array(scores[:, 0]) + (1 - share) * array(scores[:, 1])
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        counts = np.bincount(p.argmax(1), minlength=5)
        ratio = counts / counts.max()
        want = [i for i, row in enumerate(p)
                if row.max() > 0.95 * ratio[row.argmax()] / (2 - ratio[row.argmax()])]  # fmt: skip
        assert method.choose_extra(scores, moment(step)).tolist() == want
        assert method.chosen_fraction.item() == pytest.approx(len(want) / 60)
    assert method.choose_extra(torch.zeros(7, 2, 5), moment(0)).tolist() == list(range(7))
    assert method.chosen_fraction == 0
    warning = method.diagnose({"chosen_fraction": 0.0})["chosen_fraction"]
    assert warning.startswith("0.0% of the extra images")
    assert method.diagnose({"chosen_fraction": 0.5}) == {}


def test_scores_are_those_of_both_networks(tiny_net, tiny_task, batch):
    method = offline("kd3", tiny_net, tiny_task)
    scores = method.score_extra(batch.inputs)
    assert scores.shape == (8, 2, 5)
    assert torch.equal(scores[:, 0], method.teacher(batch.inputs))
    assert torch.equal(scores[:, 1], method.student(batch.inputs))


def test_a_teacher_of_another_size_of_maps(tiny_net, tiny_task, batch, progress):
    method = offline("kd3", tiny_net, tiny_task, teacher_net(strides=(1, 1, 2, 2)))
    assert torch.isfinite(method(batch, progress).total)


def test_refused(tiny_net, tiny_task):
    deep = teacher_net()
    deep.fc = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 5))
    with pytest.raises(ConfigError, match="the teacher, Sequential, ends with another than one"):
        offline("kd3", tiny_net, tiny_task, deep)
    for options, words in (
        ({"confidence": 1.5}, "confidence=1.5 is a probability"),
        ({"contrastive_temperature": 0.0}, "must be above 0"),
        ({"mixing_concentration": 0.0}, "must be above 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            offline("kd3", tiny_net, tiny_task, **options)
