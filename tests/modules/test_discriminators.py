"""Discriminators against numpy, and whether they learn to tell."""

import numpy as np
import pytest
import torch

from selfdistill.modules.discriminators import Discriminator

torch.manual_seed(0)
MAPS = torch.randn(6, 5, 4, 3)


def test_equals_numpy():
    discriminator = Discriminator(5, width=7, outputs=2)
    p = {
        name: value.detach().double().numpy() for name, value in discriminator.state_dict().items()
    }
    pooled = MAPS.double().numpy().mean((2, 3))
    hidden = np.maximum(pooled @ p["layers.0.weight"].T + p["layers.0.bias"], 0)
    want = hidden @ p["layers.2.weight"].T + p["layers.2.bias"]
    np.testing.assert_allclose(discriminator(MAPS).detach().numpy(), want, atol=1e-6)


@pytest.mark.parametrize(("size", "outputs"), [((1, 1), 1), ((8, 2), 1), ((2, 2), 3)])
def test_a_map_of_any_size_and_one_image_will_do(size, outputs):
    assert Discriminator(5, outputs=outputs)(torch.randn(1, 5, *size)).shape == (1, outputs)


def test_scores_can_be_of_either_sign_and_ignore_places():
    discriminator = Discriminator(5)
    scores = discriminator(10 * torch.randn(200, 5, 2, 2))
    assert scores.min() < 0 < scores.max()
    torch.testing.assert_close(discriminator(MAPS.flip(2, 3)), discriminator(MAPS))


def test_learns_to_tell_two_clouds_apart():
    torch.manual_seed(0)
    discriminator = Discriminator(5, width=16)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.01)
    real, fake = torch.randn(64, 5, 2, 2) + 1, torch.randn(64, 5, 2, 2) - 1
    for _ in range(60):
        loss = (1 - discriminator(real)).square().mean() + discriminator(fake).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05  # least squares of a discriminator that only guesses are 1/2
