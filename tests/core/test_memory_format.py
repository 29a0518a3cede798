import torch
from torch import nn

from selfdistill.core.memory_format import (
    channels_last,
    module_to_channels_last,
    module_to_contiguous,
)

LAST, LAST_3D = torch.channels_last, torch.channels_last_3d


def test_values_stay_and_memory_changes():
    for shape, layout in (((2, 3, 4, 5), LAST), ((2, 3, 4, 5, 6), LAST_3D)):
        x = torch.randn(shape)
        changed = channels_last(x)
        assert torch.equal(changed, x)
        assert changed.is_contiguous(memory_format=layout)
    vector = torch.randn(3)
    assert channels_last(vector) is vector


def test_a_module_keeps_its_parameters():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4))
    before = list(module.parameters())
    values = [p.detach().clone() for p in before]
    module_to_channels_last(module)
    assert all(a is b for a, b in zip(module.parameters(), before, strict=True))
    assert all(map(torch.equal, module.parameters(), values))
    assert module[0].weight.is_contiguous(memory_format=LAST)
    assert module[1].weight.is_contiguous(memory_format=LAST_3D)
    module_to_contiguous(module)
    assert all(a is b for a, b in zip(module.parameters(), before, strict=True))
    assert all(map(torch.equal, module.parameters(), values))
    assert all(tensor.is_contiguous() for tensor in module.state_dict().values())
