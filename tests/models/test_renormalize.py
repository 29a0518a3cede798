"""Networks that bring images to their own size, in every type that training computes in."""

import pytest
import torch
from torch import nn

from selfdistill.models.renormalize import resize_inputs


@pytest.mark.parametrize("shape", [(2, 3, 12, 9), (2, 3, 4, 12, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_images_are_resized_in_half_precision_too(shape, dtype):
    network = nn.Identity()
    resize_inputs(network, (6, 6))
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    resized = network(images.to(dtype))
    assert resized.shape == (*shape[:-2], 6, 6)
    assert resized.dtype == dtype
    expected = network(images.to(dtype).float())
    torch.testing.assert_close(resized, expected.to(dtype), rtol=0, atol=0)
