"""Critics against plain concatenation, against loops over pairs, and by their size."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from selfdistill.modules.critics import CRITICS, ConcatCritic, SeparableCritic
from selfdistill.modules.global_critic import GlobalCritic
from selfdistill.modules.mutual_information import jensen_shannon

B, C, D, H, W = 5, 6, 7, 3, 4


@pytest.fixture
def views():
    torch.manual_seed(0)
    return torch.randn(B, C, H, W), torch.randn(B, D)


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("critic", "local", "want"),
    [
        (ConcatCritic, 512, 787_969),
        (ConcatCritic, 64, 558_593),
        (GlobalCritic, 512, 1_101_409),
        (GlobalCritic, 64, 843_361),
    ],
)
def test_parameter_counts(critic, local, want):
    with torch.device("meta"):
        assert size(critic(local, 512)) == want


@pytest.mark.parametrize("name", sorted(CRITICS))
def test_shapes_with_a_shift(name, views):
    scores = CRITICS[name](C, D)(*views, torch.tensor(2))
    cells = 1 if name == "global" else H * W
    assert scores.positive.shape == (B, cells)
    assert scores.negative.shape == (B, cells, 1)


def by_concatenation(critic: ConcatCritic, local, glob):
    """One 1×1 convolution over the map with the vector beside every cell, then the rest."""
    first = nn.Conv2d(C + D, critic.local.out_channels, 1)
    glob_weight = critic.vector.weight[..., None, None]
    first.weight.data = torch.cat([critic.local.weight, glob_weight], 1)
    first.bias.data = critic.local.bias.data
    tiled = glob[..., None, None].expand(-1, -1, H, W)
    return critic.head(first(torch.cat([local, tiled], 1))).flatten(1)


@pytest.mark.parametrize("shift", range(1, B))
def test_concat_equals_plain_concatenation(shift, views):
    local, glob = views
    critic = ConcatCritic(C, D, width=32)
    scores = critic(local, glob, torch.tensor(shift))
    want = by_concatenation(critic, local, glob)
    torch.testing.assert_close(scores.positive, want, atol=1e-5, rtol=0)
    want = by_concatenation(critic, local.roll(-shift, 0), glob)
    torch.testing.assert_close(scores.negative[..., 0], want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", range(1, B))
def test_global_equals_plain_concatenation(shift, views):
    local, glob = views
    critic = GlobalCritic(C, D, width=32)

    def plain(local):
        summary = nn.functional.adaptive_avg_pool2d(critic.encode(local), 4).flatten(1)
        return critic.head(critic.joined(torch.cat([summary, glob], 1)))

    scores = critic(local, glob, torch.tensor(shift))
    torch.testing.assert_close(scores.positive, plain(local), atol=1e-5, rtol=0)
    want = plain(local.roll(-shift, 0))
    torch.testing.assert_close(scores.negative[..., 0], want, atol=1e-5, rtol=0)


def separable_scores(critic: SeparableCritic, local, glob) -> np.ndarray:
    """Every cell of every image with every global vector, (image, cell, image), in numpy."""
    p = {name: value.detach().double().numpy() for name, value in critic.state_dict().items()}
    cells, glob = local.flatten(2).double().numpy(), glob.double().numpy()
    hidden = np.maximum(glob @ p["layers.0.weight"].T + p["layers.0.bias"], 0)
    right = glob @ p["shortcut.weight"].T + p["shortcut.bias"] + hidden @ p["layers.2.weight"].T
    scores = np.empty((B, H * W, B))
    for i in range(B):
        for n in range(H * W):
            left = p["local.weight"] @ cells[i, :, n] + p["local.bias"]
            for j in range(B):
                scores[i, n, j] = left @ right[j] / math.sqrt(len(left))
    return scores


def held(scores) -> np.ndarray:
    """(B, N, B - 1): the negatives of all pairs, in order."""
    assert scores.with_own
    every = scores.negative.detach().numpy()
    return np.stack([np.delete(every[i], i, -1) for i in range(len(every))])


def test_separable_equals_a_loop_over_all_pairs(views):
    local, glob = views
    critic = SeparableCritic(C, D, width=8)
    scores = critic(local, glob)
    table = separable_scores(critic, local, glob)
    for i in range(B):
        others = [j for j in range(B) if j != i]
        own = scores.positive[i].detach().numpy()
        np.testing.assert_allclose(own, table[i, :, i], atol=1e-5)
        # the global view stays, the local ones are those of the other images
        want = np.stack([table[j, :, i] for j in others], -1)
        np.testing.assert_allclose(held(scores)[i], want, atol=1e-5)


def test_all_pairs_are_counted_once(views):
    critic = SeparableCritic(C, D, width=8)
    scores = critic(*views)
    table = separable_scores(critic, *views)
    want = np.sort([table[i, n, j] for i, n, j in np.ndindex(table.shape) if i != j])
    np.testing.assert_allclose(np.sort(held(scores).ravel()), want, atol=1e-5)


@pytest.mark.parametrize("shift", range(1, B))
def test_separable_roll_equals_explicit_pairs(shift, views):
    critic = SeparableCritic(C, D, width=8)
    positive, negative, _ = critic(*views, torch.tensor(shift))
    table = separable_scores(critic, *views)
    for i in range(B):
        other = (i + shift) % B
        np.testing.assert_allclose(positive[i].detach().numpy(), table[i, :, i], atol=1e-5)
        np.testing.assert_allclose(negative[i, :, 0].detach(), table[other, :, i], atol=1e-5)


def test_all_pairs_of_two_are_the_roll(views):
    local, glob = (v[:2] for v in views)
    critic = SeparableCritic(C, D)
    together, rolled = critic(local, glob), critic(local, glob, torch.tensor(1))
    torch.testing.assert_close(together.positive, rolled.positive)
    np.testing.assert_allclose(held(together), rolled.negative.detach(), atol=1e-6)


@pytest.mark.parametrize("name", sorted(CRITICS))
def test_blind_to_the_order_of_the_batch(name, views):
    """Rolling both views together leaves the loss as it is."""
    critic = CRITICS[name](C, D)
    shift = torch.tensor(2)
    loss = jensen_shannon(*critic(*views, shift))
    rolled = jensen_shannon(*critic(*(v.roll(1, 0) for v in views), shift))
    torch.testing.assert_close(loss, rolled)


@pytest.mark.parametrize("name", sorted(CRITICS))
@pytest.mark.parametrize("channels", [64, 512])
def test_starts_near_chance(name, channels):
    torch.manual_seed(0)
    local, glob = torch.randn(16, channels, 4, 4).relu(), torch.randn(16, 512).relu()
    loss = jensen_shannon(*CRITICS[name](channels, 512)(local, glob, torch.tensor(1)))
    assert loss.item() == pytest.approx(2 * math.log(2), abs=0.05)


def test_pairs_of_one_class_are_positive(views):
    critic, labels = SeparableCritic(C, D, width=8), np.array([0, 1, 0, 2, 1])
    same_class = torch.from_numpy(labels[:, None] == labels)
    positive, negative, _ = critic(*views, same_class_mask=same_class)
    table = separable_scores(critic, *views)  # [image of the cell, cell, image of the global view]
    pairs = [(i, j) for i in range(B) for j in range(B)]
    for value, scores in (
        (True, positive[positive < np.inf]),
        (False, negative[negative > -np.inf]),
    ):
        want = [table[i, :, j] for i, j in pairs if (labels[i] == labels[j]) == value]
        got = np.sort(scores.detach().numpy())
        np.testing.assert_allclose(got, np.sort(np.concatenate(want)), atol=1e-5)
    loss = jensen_shannon(positive, negative)
    same = np.concatenate([table[i, :, j] for i, j in pairs if labels[i] == labels[j]])
    other = np.concatenate([table[i, :, j] for i, j in pairs if labels[i] != labels[j]])
    want = np.logaddexp(0, -same).mean() + np.logaddexp(0, other).mean()
    assert loss.item() == pytest.approx(want, abs=1e-5)


def test_images_all_alone_in_their_class_are_the_usual_pairs(views):
    critic = SeparableCritic(C, D)
    usual = jensen_shannon(*critic(*views))
    torch.testing.assert_close(
        jensen_shannon(*critic(*views, same_class_mask=torch.eye(B, dtype=torch.bool))), usual
    )


@pytest.mark.parametrize("name", sorted(CRITICS))
def test_everything_is_trained(name, views):
    critic = CRITICS[name](C, D)
    local, glob = (v.requires_grad_() for v in views)
    jensen_shannon(*critic(local, glob, torch.tensor(1))).backward()
    assert all(p.grad is not None for p in critic.parameters())
    assert local.grad.abs().sum() > 0
    assert glob.grad.abs().sum() > 0
