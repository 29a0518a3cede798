"""Channels converted: by Pillow's luma, and back to what color of one shade is."""

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.functional.channels import (
    channels_convertible,
    convert_channels,
    convert_moments,
)


def color(*shape):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_gray_is_pillow_s_luma():
    pixels = color(3, 40, 50)
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    expected = torch.from_numpy(np.array(picture.convert("L")))[None]
    assert torch.equal(convert_channels(pixels, 1), expected)
    assert torch.equal(convert_channels(pixels.expand(2, -1, -1, -1), 1)[1], expected)


def test_gray_of_floating_point_differs_by_its_rounding():
    pixels = color(4, 3, 20, 20)
    exact = convert_channels(pixels.double(), 1)
    assert (exact - convert_channels(pixels, 1)).abs().max() <= 0.5 + 1e-9


def test_gray_repeated_and_back():
    pixels = color(2, 1, 5, 6)
    repeated = convert_channels(pixels, 3)
    assert repeated.shape == (2, 3, 5, 6)
    assert all(torch.equal(repeated[:, c], pixels[:, 0]) for c in range(3))
    assert torch.equal(convert_channels(repeated, 1), pixels)
    assert convert_channels(pixels, 1) is pixels


def test_moments_go_with_the_images():
    pixels = color(2, 3, 30, 30).double()
    mean = convert_moments(pixels.mean((0, 2, 3)).tolist(), 1)
    assert mean[0] == pytest.approx(float(convert_channels(pixels, 1).mean()))
    assert convert_moments((0.3,), 3) == (0.3, 0.3, 0.3)
    assert convert_moments((0.2, 0.2, 0.2), 1) == pytest.approx((0.2,))


@pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 2), (4, 3), (3, 4), (3, 2)])
def test_other_numbers_are_no_channels_of_pictures(old, new):
    assert not channels_convertible(old, new)
    with pytest.raises(ValueError, match="cannot be converted"):
        convert_channels(color(old, 4, 4), new)
