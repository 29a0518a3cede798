import numpy as np
import pytest
import torch
from torch import nn

from selfdistill.functional.attention import attention_map, pooled_to
from selfdistill.functional.places import mean_over_places, pooled_to_size

CLIP = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 4, 6, 8)))


@pytest.mark.parametrize("x", [CLIP, CLIP[:, :, 0]], ids=["clip", "image"])
def test_mean_equals_numpy(x):
    want = x.numpy().reshape(2, 3, -1).mean(2)
    np.testing.assert_allclose(mean_over_places(x).numpy(), want)


def test_pooling_of_whole_parts_equals_numpy():
    want = CLIP.numpy().reshape(2, 3, 2, 2, 3, 2, 4, 2).mean((3, 5, 7))
    np.testing.assert_allclose(pooled_to_size(CLIP, (2, 3, 4)).numpy(), want)


def test_pooling_of_parts_that_overlap():
    want = nn.AdaptiveAvgPool3d((3, 4, 5))(CLIP)
    torch.testing.assert_close(pooled_to_size(CLIP, (3, 4, 5)), want)


def test_a_map_of_the_size_is_handed_back():
    assert pooled_to_size(CLIP, (4, 6, 8)) is CLIP


def test_the_larger_of_two_is_pooled_side_by_side():
    like = torch.zeros(2, 5, 2, 6, 16)
    want = CLIP.numpy().reshape(2, 3, 2, 2, 6, 8).mean(3)
    np.testing.assert_allclose(pooled_to(CLIP, like).numpy(), want)


def test_attention_of_a_clip_is_over_space_and_time():
    x = CLIP.numpy().astype(np.float32)
    energy = (x**2).mean(1).reshape(2, -1)
    want = energy / np.linalg.norm(energy, axis=1, keepdims=True)
    np.testing.assert_allclose(attention_map(CLIP).numpy(), want, rtol=1e-5)
