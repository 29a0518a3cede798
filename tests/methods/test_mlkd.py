"""Three levels of logits against the authors' code and numpy, at each temperature and view."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfdistill.core import METHODS, Batch, ConfigError, Frozen
from selfdistill.methods.mlkd import gram_distance
from selfdistill.tasks import Classification

B, K = 8, 5
WEAK, STRONG = -torch.ones(B, 3, 4, 4), torch.ones(B, 3, 4, 4)
LABELS = torch.arange(B) % K
BATCH = Batch(WEAK, LABELS, torch.arange(B), (STRONG,))
# of the authors' code, KD_ours.forward_train, for the logits below
AUTHORS = {
    "task": 0.433051198720932,
    "instance": 14.446756362915039,
    "batch": 0.06644909083843231,
    "class": 0.050355907529592514,
}


class SaysOfView(nn.Module):
    """Logits (2B, K): the first half for dark images, the second for bright ones."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[: len(x)] if x.mean() < 0 else self.logits[len(x) :]


def wave(frequency: float) -> Tensor:
    steps = torch.arange(2 * B * K, dtype=torch.float64)
    return (frequency * steps).sin().view(2 * B, K).float()


def mlkd(**options):
    task = Classification("abcde", torch.zeros(2, 3, 4, 4))
    teacher = Frozen(SaysOfView(4 * wave(0.53)))
    return METHODS["mlkd"](SaysOfView(3 * wave(0.37)), teacher, task, **options)


def test_released_terms_are_those_of_the_authors_code(progress):
    losses = mlkd()(BATCH, progress).losses
    assert losses.keys() == AUTHORS.keys()
    for name, value in AUTHORS.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-5)


def softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("temperatures", [(4.0,), (3.5, 4.5), (2.0, 3.0, 4.0, 5.0, 6.0)])
def test_plain_terms_equal_numpy(temperatures, progress):
    number = len(temperatures)
    method = mlkd(variant="plain", soft_weight=2.0, num_temperatures=number)
    losses = method(BATCH, progress).losses
    want = dict.fromkeys(("instance", "batch", "class"), 0.0)
    z, t = (3 * wave(0.37)).double().numpy(), (4 * wave(0.53)).double().numpy()
    for tau in temperatures:
        p, q = softmax(z / tau), softmax(t / tau)
        divergence = (q * np.log(q / p)).sum(1)
        want["instance"] += 2 * tau**2 * (divergence[:B].mean() + divergence[B:].mean())
        p, q = p[:B], q[:B]
        want["batch"] += 2 / B * np.linalg.norm(p @ p.T - q @ q.T) ** 2
        want["class"] += 2 / K * np.linalg.norm(p.T @ p - q.T @ q) ** 2
    for name, value in want.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4)


def test_outermost_temperatures_of_the_code_never_see_the_second_view(progress):
    outer = mlkd()
    outer.temperatures = [2.0, 6.0]
    outer(BATCH, progress).losses["instance"].backward()
    grads = outer.student.logits.grad
    assert grads[:B].abs().max() > 0
    assert grads[B:].abs().max() == 0


def test_equal_logits_have_equal_relations():
    x = torch.rand(6, 3)
    assert gram_distance(x, x.clone()).item() == 0
    assert gram_distance(x, x[:, [2, 0, 1]]).item() == pytest.approx(0, abs=1e-12)


def test_relations_are_compared_in_full_precision():
    x, y = torch.rand(6, 3), torch.rand(6, 3)
    with torch.autocast("cpu", torch.bfloat16):
        half = gram_distance(x, y)
    assert torch.equal(half, gram_distance(x, y))


def test_nothing_trains_the_teacher(progress):
    method = mlkd()
    method(BATCH, progress).total.backward()
    assert method.teacher.network.logits.grad is None


def test_only_labels_or_only_levels(progress):
    assert mlkd(soft_weight=0.0)(BATCH, progress).losses.keys() == {"task"}
    assert mlkd(supervised_weight=0.0)(BATCH, progress).losses.keys() == AUTHORS.keys() - {"task"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"supervised_weight": 0.0, "soft_weight": 0.0}, "needs a loss"),
        ({"temperature": 2.0}, "5 temperatures in steps of 1 around 2 are not all above 0"),
        ({"num_temperatures": 0}, "not all above 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        mlkd(**options)


def test_one_view_is_not_enough(progress):
    assert mlkd()(BATCH, progress).total.isfinite()
    with pytest.raises(ConfigError, match=r"Loader\(views=2\)"):
        mlkd()(BATCH._replace(views=()), progress)
