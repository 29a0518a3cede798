"""Exits that match each other: every pair both ways, against numpy and the authors' code."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from offline_pairs import reached

from selfdistill.core import METHODS, ConfigError
from selfdistill.taps import Taps

TRUNK = ["stage1", "stage2", "stage3", "stage4"]


def dks(tiny_net, tiny_task, taps=TRUNK, **options):
    torch.manual_seed(0)
    return METHODS["dks"](Taps(tiny_net, taps, example=tiny_task.example), tiny_task, **options)


def saying(method, logits, monkeypatch):
    """The method with these logits of student and exits, in this order."""
    first, *others = logits
    monkeypatch.setattr(method.student, "forward_features", lambda x: (first, {}))
    monkeypatch.setattr(method.exits, "forward", lambda features: ([], others))
    return method


def test_total_is_that_of_the_authors_code(tiny_net, tiny_task, batch, progress, monkeypatch):
    steps = torch.arange(40, dtype=torch.float64)
    logits = [3 * (f * steps).sin().view(8, 5).float() for f in (0.37, 0.53, 0.71)]
    method = saying(dks(tiny_net, tiny_task), logits, monkeypatch)
    assert method(batch, progress).total.item() == pytest.approx(16.56170082092285, rel=1e-5)


def softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z)
    return powers / powers.sum(1, keepdims=True)


def test_terms_equal_numpy(tiny_net, tiny_task, batch, progress):
    options = {"supervised_weight": 0.5, "soft_weight": 2.0, "temperature": 3.0}
    method = dks(tiny_net, tiny_task, **options).eval()
    losses = method(batch, progress).losses
    outputs = method.predict(batch.inputs)
    order = ["student", "exit1", "exit2", "exit3"]
    p = [softmax(outputs[name].detach().double().numpy() / 3) for name in order]
    for i, name in enumerate(order):
        suffix = f"/{i}" if i else ""
        soft = sum((q * np.log(q / p[i])).sum(1).mean() for q in p)  # to itself it is 0
        assert losses[f"soft{suffix}"].item() == pytest.approx(2 * 9 * soft, rel=1e-3)
        task = (0.5 if i else 1.0) * F.cross_entropy(outputs[name], batch.targets)
        torch.testing.assert_close(losses[f"task{suffix}"], task)
    assert len(losses) == 8


def test_the_side_that_teaches_is_detached(tiny_net, tiny_task, batch, progress):
    method = dks(tiny_net, tiny_task).train()
    losses = method(batch, progress).losses
    assert reached(losses["soft"], tiny_net) == {*TRUNK, "fc"}
    for i in (1, 2, 3):
        assert reached(losses[f"soft/{i}"], tiny_net) == set(TRUNK[:i])
        assert reached(losses[f"soft/{i}"], method.exits.heads) == {str(i - 1)}


def test_with_two_taps_both_ends_teach(tiny_net, tiny_task, batch, progress):
    method = dks(tiny_net, tiny_task, ["stage2", "stage4"]).eval()
    losses = method(batch, progress).losses
    assert losses.keys() == {"task", "task/1", "soft", "soft/1"}
    assert all(loss.isfinite() for loss in losses.values())


def test_terms_without_weight_are_left_out(tiny_net, tiny_task, batch, progress):
    labels = dks(tiny_net, tiny_task, soft_weight=0.0)(batch, progress).losses
    assert labels.keys() == {"task", "task/1", "task/2", "task/3"}
    soft = dks(tiny_net, tiny_task, supervised_weight=0.0)(batch, progress).losses
    assert soft.keys() == {"task", "soft", "soft/1", "soft/2", "soft/3"}
    with pytest.raises(ConfigError, match="exits need a loss"):
        dks(tiny_net, tiny_task, soft_weight=0.0, supervised_weight=0.0)


def test_exits_stay_behind(tiny_net, tiny_task, batch):
    method = dks(tiny_net, tiny_task).eval()
    assert list(method.predict(batch.inputs)) == ["exit1", "exit2", "exit3", "student"]
