"""A critic trained on Gaussian pairs finds the loss and the information that theory gives."""

import math

import pytest
import torch

from selfdistill.modules.critics import ConcatCritic, SeparableCritic
from selfdistill.modules.mutual_information import jensen_shannon


def pairs(n: int, dims: int, rho: float, powers: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, dims)
    y = rho * x + math.sqrt(1 - rho**2) * torch.randn(n, dims)
    local = torch.cat([x**power for power in range(1, powers + 1)], 1)
    return local[:, :, None, None], y


def trained(critic, *law, steps: int, batch: int, roll: bool) -> tuple[float, float]:
    """Loss and plug-in divergence, mean score of positives, on fresh pairs."""
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        shift = torch.randint(1, batch, ()) if roll else None
        loss = jensen_shannon(*critic(*pairs(batch, *law), shift))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        scores = critic(*pairs(50_000, *law), torch.tensor(1))
    return jensen_shannon(*scores).item(), scores.positive.mean().item()


@pytest.mark.parametrize(("rho", "lowest"), [(0.9, 0.9572), (0.0, 1.3863)])
def test_separable_critic(rho, lowest):
    """It is linear in its local view and the best critic is quadratic: it gets the square, too."""
    torch.manual_seed(0)
    critic = SeparableCritic(2, 1, width=32)
    loss, divergence = trained(critic, 1, rho, 2, steps=400, batch=128, roll=False)
    assert loss == pytest.approx(lowest, abs=0.03)
    assert divergence == pytest.approx(-0.5 * math.log(1 - rho**2), rel=0.1, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dims", "rho", "lowest"),
    [(1, 0.0, 1.3863), (1, 0.5, 1.3125), (1, 0.9, 0.9572), (2, 0.9, 0.656), (5, 0.9, 0.2135)],
)
def test_concat_critic(dims, rho, lowest):
    torch.manual_seed(0)
    critic = ConcatCritic(dims, dims, width=64)
    loss, divergence = trained(critic, dims, rho, 1, steps=500, batch=512, roll=True)
    assert loss == pytest.approx(lowest, abs=0.03)
    information = -0.5 * dims * math.log(1 - rho**2)
    assert divergence == pytest.approx(information, rel=0.1, abs=0.02)
