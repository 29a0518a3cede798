"""USKD against the authors' code and numpy: soft labels of confidence and of ranks."""

import numpy as np
import pytest
import torch
from golden_logits import LABELS, STUDENT, waves
from offline_pairs import STAGES, reached
from scipy.special import log_softmax, softmax

from selfdistill.core import METHODS, ConfigError, options
from selfdistill.functional.labeled_class import without_label
from selfdistill.methods.uskd import target_class_loss, zipf_weights
from selfdistill.taps import Taps

# yzd-v/cls_KD, mmcls/models/dis_losses/uskd.py at 1e5d48f: each of its terms with a weight of 1
TARGET, OTHERS, WEAK = 2.987955420661226, 2.013493268396838, 1.4606092017510792
FEATURE, MATRIX, BIAS = waves(4, 6, 0.7, 0.3), waves(5, 6, 1.1, -0.4) / 3, waves(1, 5, 0.5, 0.0) / 3


def uskd(net, task, taps=STAGES, **chosen):
    torch.manual_seed(1)
    return METHODS["uskd"](Taps(net, taps, example=task.example), task, **chosen)


class TwoOutputs(torch.nn.Module):
    """A network whose tap before the last gives FEATURE, and whose output is STUDENT."""

    def __init__(self):
        super().__init__()
        self.feature, self.last = torch.nn.Identity(), torch.nn.Identity()

    def forward(self, x):
        self.feature(FEATURE[: len(x), :, None, None])
        return self.last(STUDENT[: len(x)])


def test_terms_are_those_of_the_authors_code(batch, tiny_task, progress):
    method = uskd(TwoOutputs(), tiny_task, ["feature", "last"])
    linear = method.weak_classifier[-1]
    with torch.no_grad():
        linear.weight.copy_(MATRIX)
        linear.bias.copy_(BIAS[0])
    losses = method(batch._replace(inputs=batch.inputs[:4], targets=LABELS), progress).losses
    assert losses["target"].item() == pytest.approx(TARGET, rel=1e-5)
    assert losses["others"].item() == pytest.approx(0.1 * OTHERS, rel=1e-5)
    assert losses["weak"].item() == pytest.approx(0.005 * WEAK, rel=1e-5)
    torch.testing.assert_close(losses["task"], tiny_task.loss(STUDENT, LABELS))


def test_ranks_equal_numpy():
    outputs, weak = (np.random.default_rng(i).normal(size=(6, 7)) for i in (0, 1))
    labels = np.array([0, 6, 3, 3, 1, 2])
    p, w = log_softmax(outputs, 1), softmax(weak, 1)
    sums = [x / (1 - x[range(6), labels])[:, None] for x in (p, w)]
    order = np.argsort(-(sums[0] + sums[1]), 1)
    want = np.empty((6, 7))
    for row, classes in zip(want, order, strict=True):
        row[classes] = 1 / np.arange(1, 8)
    got = zipf_weights(*map(torch.from_numpy, (outputs, weak, labels)))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_sure_image_counts_more_and_the_mean_label_is_one():
    logits = torch.tensor([[4.0, 0, 0], [0, 0, 0], [0, 4, 0]], requires_grad=True)
    target_class_loss(logits, torch.tensor([0, 0, 0])).backward()
    p = logits.detach().softmax(1)
    soft_label = 1 + p[:, 0] ** 2 - (p[:, 0] ** 2).mean()
    torch.testing.assert_close(logits.grad[:, 0], soft_label * (p[:, 0] - 1) / 3)
    assert soft_label.mean().item() == pytest.approx(1)


def test_without_label_drops_one_class():
    values = torch.arange(12.0).view(3, 4)
    got = without_label(values, torch.tensor([0, 2, 3]))
    assert got.tolist() == [[1, 2, 3], [4, 5, 7], [8, 9, 10]]


def test_the_weak_classifier_trains_the_network_up_to_its_tap(tiny_net, tiny_task, batch, progress):
    method = uskd(tiny_net, tiny_task)
    losses = method(batch, progress).losses
    assert reached(losses["weak"], tiny_net) == {"stage1", "stage2", "stage3"}
    assert "weak_classifier" not in reached(losses["others"], method)


def test_options_and_defaults(tiny_net, tiny_task):
    defaults = {o.name: o.default for o in options(METHODS["uskd"]).values()}
    assert defaults == {
        "target_class_weight": 1.0,
        "non_target_class_weight": 0.1,
        "weak_weight": 0.005,
    }
    with pytest.raises(ConfigError, match="the tap before the last, and there is 1"):
        uskd(tiny_net, tiny_task, ["stage4"])
    with pytest.raises(ConfigError, match="weak_weight=0 leaves"):
        uskd(tiny_net, tiny_task, weak_weight=0.0)
