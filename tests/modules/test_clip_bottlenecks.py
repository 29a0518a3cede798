"""Exits and critics on the features of clips, (C, T, H, W)."""

import pytest
import torch

from selfdistill.core import ConfigError
from selfdistill.modules.bottlenecks import BOTTLENECKS, exit_grid
from selfdistill.modules.critics import ConcatCritic, SeparableCritic
from selfdistill.modules.global_critic import GlobalCritic
from selfdistill.modules.pairs import check_layouts, check_positions

SHALLOW, LAST = (6, 8, 16, 16), (12, 4, 4, 4)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_grid_has_times():
    assert exit_grid(SHALLOW, (12, 1, 2, 2)) == (4, 4, 4)
    assert exit_grid((6, 2, 16, 16), (12, 1, 5, 7)) == (2, 5, 7)


@pytest.mark.parametrize("kind", BOTTLENECKS)
def test_a_bottleneck_ends_at_the_last_features_size(kind):
    assert BOTTLENECKS[kind](SHALLOW, LAST)(draw(2, *SHALLOW)).shape == (2, *LAST)


def test_the_slim_one_pools_over_time():
    bottleneck = BOTTLENECKS["slim"](SHALLOW, LAST).eval()
    x = draw(2, *SHALLOW)
    pooled = x.view(2, 6, 4, 2, 4, 4, 4, 4).mean((3, 5, 7))
    torch.testing.assert_close(bottleneck(x), bottleneck.layers(pooled))


@pytest.mark.parametrize("critic", [SeparableCritic, ConcatCritic])
def test_a_critic_scores_each_place_by_itself(critic):
    torch.manual_seed(0)
    cells, vector, shift = draw(3, 6, 2, 4, 4), draw(3, 5), torch.tensor(1)
    scores = critic(6, 5, 8)
    clip, places = (scores(x, vector, shift) for x in (cells, cells.flatten(2)[..., None]))
    torch.testing.assert_close(clip, places)
    assert clip[0].shape == (3, 32)


def test_the_global_critic_reads_the_mean_over_time():
    torch.manual_seed(0)
    x, vector, shift = draw(3, 6, 2, 4, 4), draw(3, 5), torch.tensor(1)
    critic = GlobalCritic(6, 5, 8)
    torch.testing.assert_close(critic(x, vector, shift), critic(x.mean(2), vector, shift))


def test_positions_are_counted_in_time_too():
    check_positions([((4, 2, 1, 1), (8, 3, 1, 1))])
    with pytest.raises(ConfigError, match="single cell"):
        check_positions([((4, 2, 1, 1), (8, 1, 2, 2))])


def test_a_map_with_times_is_not_compared_with_one_without():
    with pytest.raises(ConfigError, match="one alone has times"):
        check_layouts((4, 2, 8, 8), (4, 8, 8))
