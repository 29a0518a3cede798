"""DIST against numpy's correlation and the authors' code; what it is blind to; scenes."""

import numpy as np
import pytest
import torch
from golden_logits import LABELS, STUDENT, TEACHER, waves
from offline_pairs import Says, teacher_net
from scene_pairs import scene_batch, scene_net, scene_task
from scipy.special import softmax

from selfdistill.core import IGNORE, METHODS, Batch, ConfigError, Frozen, options
from selfdistill.methods.dist import pearson, probability_rows


def dist(task, student, teacher, **chosen):
    return METHODS["dist"](Says(student), Frozen(Says(teacher)), task, **chosen)


def of_four(batch):
    return batch._replace(inputs=batch.inputs[:4], targets=LABELS)


# hunto/image_classification_sota, lib/models/losses/dist_kd.py at β, γ of 1 and 0
@pytest.mark.parametrize(
    ("temperature", "inter", "intra"),
    [(1.0, 1.0200775933937396, 0.9405766286324887), (4.0, 16.32535437584076, 15.838375363969389)],
)
def test_terms_are_those_of_the_authors_code(temperature, inter, intra, batch, tiny_task, progress):
    method = dist(tiny_task, STUDENT, TEACHER, temperature=temperature)
    losses = method(of_four(batch), progress).losses
    assert losses["inter"].item() == pytest.approx(2 * inter, rel=1e-5)
    assert losses["intra"].item() == pytest.approx(2 * intra, rel=1e-5)
    torch.testing.assert_close(losses["task"], tiny_task.loss(STUDENT, LABELS))


def test_scenes_are_batches_of_pixels_as_in_the_authors_code(progress):
    student, teacher = waves(2, 24, 0.9, 0.1), waves(2, 24, 1.7, 0.4)
    student, teacher = (x.view(2, 3, 2, 4) for x in (student, teacher))
    task = type(scene_task())("abc", torch.zeros(2, 3, 16, 16))
    method = dist(task, student, teacher, inter_class_weight=1.0, intra_class_weight=1.0)
    losses = method(Batch(None, torch.zeros(2, 2, 4).long(), torch.arange(2)), progress).losses
    # hunto/DIST_KD, segmentation/losses/dist_kd.py at 2418f18
    assert losses["inter"].item() == pytest.approx(0.8657932782831674, rel=1e-5)
    assert losses["intra"].item() == pytest.approx(0.9566458989706682, rel=1e-5)


def test_correlation_equals_numpy():
    x, y = np.random.default_rng(0).normal(size=(2, 6, 9))
    want = [np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(pearson(torch.from_numpy(x), torch.from_numpy(y)), want)
    repeats = np.array([0, 1, 2, 3, 0, 1, 1, 4, 2])  # weights are as good as repetitions
    got = pearson(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(1.0 * repeats))
    x, y = (np.repeat(z, repeats, axis=1) for z in (x, y))
    want = [np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(got, want)


def test_blind_to_scale_and_shift_of_probabilities():
    teacher = torch.from_numpy(softmax(TEACHER.numpy(), 1))
    student = 0.5 * teacher + 0.1  # rows sum to 1
    torch.testing.assert_close(pearson(student, teacher), torch.ones(4))
    torch.testing.assert_close(pearson(student.T, teacher.T), torch.ones(5))


def test_flat_rows_have_no_correlation_and_a_finite_gradient():
    x = torch.ones(2, 4, requires_grad=True)
    correlation = pearson(x, torch.rand(2, 4))
    assert (correlation == 0).all()
    correlation.sum().backward()
    assert x.grad.isfinite().all()


def test_void_pixels_are_left_out(progress):
    student, teacher = scene_net(), scene_net(seed=1).eval()
    method = METHODS["dist"](student, Frozen(teacher), scene_task()).eval()
    batch = scene_batch()
    batch.targets.fill_(0)
    batch.targets[:, :8] = IGNORE  # the upper two of four rows of scores
    losses = method(batch, progress).losses
    rows = [
        probability_rows(net(batch.inputs)[:, :, 2:], 1.0).detach().numpy()
        for net in (student, teacher)
    ]
    for name, (ours, theirs) in {"inter": rows, "intra": [r.T for r in rows]}.items():
        want = np.mean([1 - np.corrcoef(s, t)[0, 1] for s, t in zip(ours, theirs, strict=True)])
        assert losses[name].item() == pytest.approx(2 * want, rel=1e-3)


def test_equal_networks_have_nothing_to_teach(batch, tiny_task, progress):
    losses = dist(tiny_task, TEACHER, TEACHER)(of_four(batch), progress).losses
    for name in ("inter", "intra"):
        assert losses[name].item() == pytest.approx(0, abs=1e-5)


def test_options_and_defaults(tiny_net, tiny_task):
    defaults = {o.name: o.default for o in options(METHODS["dist"]).values()}
    assert defaults == {
        "supervised_weight": 1.0,
        "inter_class_weight": 2.0,
        "intra_class_weight": 2.0,
        "temperature": 1.0,
    }
    none = dict.fromkeys(list(defaults)[:3], 0.0)
    with pytest.raises(ConfigError, match="needs a loss"):
        METHODS["dist"](tiny_net, Frozen(teacher_net()), tiny_task, **none)
