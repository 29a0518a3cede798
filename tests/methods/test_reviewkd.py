"""Knowledge review against numpy and the values of its authors' code, its warm-up and its forms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from offline_pairs import STAGES, features, offline, reached, teacher_net

from selfdistill.core import ConfigError
from selfdistill.methods.reviewkd import hierarchical_context_loss


def wave(frequency: float, *shape: int) -> torch.Tensor:
    steps = torch.arange(math.prod(shape), dtype=torch.float64)
    return (frequency * steps).sin().view(shape).float()


@pytest.mark.parametrize(("side", "value"), [(8, 0.5781840422711112), (4, 0.633969451858014)])
def test_loss_has_the_value_of_the_authors_code(side, value):
    x, target = wave(0.37, 2, 3, side, side), wave(0.53, 2, 3, side, side)
    assert hierarchical_context_loss(x, target).item() == pytest.approx(value, rel=1e-5)


def context_loss(x: np.ndarray, target: np.ndarray) -> float:
    """The loss of square maps whose sides are powers of two, by blocks of cells."""
    side, losses, weights = x.shape[-1], [((x - target) ** 2).mean()], [1.0]
    for grid in (g for g in (4, 2, 1) if g < side):
        blocks = (*x.shape[:2], grid, side // grid, grid, side // grid)
        gap = (x - target).reshape(blocks).mean((3, 5))
        losses.append((gap**2).mean())
        weights.append(weights[-1] / 2)
    return float(np.average(losses, weights=weights))


@pytest.mark.parametrize("side", [16, 8, 4, 2, 1])
def test_loss_equals_numpy(side):
    x, target = torch.randn(2, 3, side, side), torch.randn(2, 3, side, side)
    want = context_loss(x.double().numpy(), target.double().numpy())
    assert hierarchical_context_loss(x, target).item() == pytest.approx(want, rel=1e-5)


def test_a_column_of_tokens_is_averaged_along_itself():
    x, target = torch.randn(2, 3, 8, 1), torch.randn(2, 3, 8, 1)
    gap = (x - target).double().numpy()[..., 0]
    parts = [(gap.reshape(2, 3, n, 8 // n).mean(-1) ** 2).mean() for n in (8, 4, 2, 1)]
    want = np.average(parts, weights=[1, 1 / 2, 1 / 4, 1 / 8])
    assert hierarchical_context_loss(x, target).item() == pytest.approx(want, rel=1e-5)


def convolved(x: np.ndarray, layers: torch.nn.Sequential) -> np.ndarray:
    """A convolution that keeps the size, and an untrained batch norm in evaluation mode."""
    weight = layers[0].weight.detach().double().numpy()
    k, (h, w) = weight.shape[-1], x.shape[-2:]
    padded = np.pad(x, [(0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)])
    taps = [
        np.einsum("oc,bchw->bohw", weight[:, :, i, j], padded[:, :, i : i + h, j : j + w])
        for i in range(k)
        for j in range(k)
    ]
    return np.sum(taps, 0) / np.sqrt(1 + layers[1].eps)


def nearest(x: np.ndarray, side: int) -> np.ndarray:
    source = np.arange(side) * x.shape[-1] // side
    return x[:, :, source][..., source]


def review(fusions, levels: list[np.ndarray], sides: list[int]) -> list[np.ndarray]:
    """From the deepest level to the shallowest, in numpy."""
    deeper, matched = None, []
    for fusion, x, side in list(zip(fusions, levels, sides, strict=True))[::-1]:
        x = convolved(x, fusion.reduce)
        if deeper is not None:
            deeper = nearest(deeper, x.shape[-1])
            weight = fusion.attention.weight.detach().double().numpy()[:, :, 0, 0]
            bias = fusion.attention.bias.detach().double().numpy()
            joined = np.concatenate([x, deeper], 1)
            scores = np.einsum("oc,bchw->bohw", weight, joined) + bias[:, None, None]
            shares = 1 / (1 + np.exp(-scores))
            x = x * shares[:, :1] + deeper * shares[:, 1:]
        deeper = nearest(x, side)
        matched.insert(0, convolved(deeper, fusion.expand))
    return matched


@pytest.mark.parametrize("strides", [(1, 2, 2, 2), (1, 1, 2, 2)])  # the second is twice the size
def test_terms_equal_numpy(strides, tiny_net, tiny_task, batch, progress):
    teacher = teacher_net(strides=strides)
    options = {"review_weight": 3.0, "fusion_width": 6, "warmup_fraction": 0.0}
    method = offline("reviewkd", tiny_net, tiny_task, teacher, **options)
    losses = method(batch, progress).losses
    levels, targets = (
        [*maps, maps[-1].mean((2, 3), keepdims=True)] for maps in features(method, batch.inputs)
    )
    sides = [t.shape[-1] for t in targets]
    for i, x in enumerate(review(method.fusions, levels, sides), 1):
        want = 3 * context_loss(x, targets[i - 1])
        assert losses[f"review/{i}"].item() == pytest.approx(want, rel=1e-4)
    assert losses.keys() == {"task", *(f"review/{i}" for i in range(1, 6))}


def test_a_level_learns_from_its_own_term_and_shallower_ones(tiny_net, tiny_task, batch, progress):
    method = offline("reviewkd", tiny_net, tiny_task, warmup_fraction=0.0).train()
    losses = method(batch, progress).losses
    for i in range(1, 6):
        assert reached(losses[f"review/{i}"], tiny_net) == set(STAGES)  # deep ones flow into all
        fusions = {str(k) for k in range(i - 1, 5)}
        assert reached(losses[f"review/{i}"], method.fusions) == fusions
    losses["review/1"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())


@pytest.mark.parametrize(("step", "share"), [(0, 0), (25, 0.25), (100, 1), (900, 1)])
def test_weight_grows_and_stays(step, share, tiny_net, tiny_task, batch, progress):
    method = offline("reviewkd", tiny_net, tiny_task, warmup_fraction=0.1)
    whole = offline("reviewkd", tiny_net, tiny_task, warmup_fraction=0.0)
    losses = method(batch, progress._replace(step=torch.tensor(step))).losses
    wanted = whole(batch, progress).losses
    for name in losses.keys() - {"task"}:
        torch.testing.assert_close(losses[name], share * wanted[name])


def test_width_is_that_of_the_last_feature_and_limited(tiny_net, tiny_task):
    widths = [
        offline("reviewkd", tiny_net, tiny_task, fusion_width=w).fusions[0].reduce[0].out_channels
        for w in (512, 8)
    ]
    assert widths == [16, 8]


def test_without_weight_it_is_plain_training(tiny_net, tiny_task, batch, progress):
    method = offline("reviewkd", tiny_net, tiny_task, review_weight=0.0)
    step = method(batch, progress)
    assert step.losses.keys() == {"task"}
    assert not list(method.fusions.parameters())
    torch.testing.assert_close(step.total, F.cross_entropy(step.outputs, batch.targets))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_fraction": 1.0}, "no fraction of a run"),
        ({"fusion_width": 0}, "no number of channels"),
    ],
)
def test_wrong_options(options, message, tiny_net, tiny_task):
    with pytest.raises(ConfigError, match=message):
        offline("reviewkd", tiny_net, tiny_task, **options)


def test_unequal_numbers_of_taps(tiny_net, tiny_task):
    with pytest.raises(ConfigError, match="student has 3 taps and teacher 4"):
        offline("reviewkd", tiny_net, tiny_task, taps=STAGES[1:])


@pytest.mark.parametrize("side", [12, 24])
def test_images_of_another_size_than_the_example(side, tiny_net, tiny_task, batch, progress):
    """As multi-scale training has them."""
    method = offline("reviewkd", tiny_net, tiny_task, teacher_net())
    inputs = F.interpolate(batch.inputs, (side, side))
    step = method(batch._replace(inputs=inputs), progress)
    assert all(loss.isfinite() for loss in step.losses.values())
