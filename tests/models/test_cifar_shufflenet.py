"""ShuffleNets: version 2 against torchvision's, version 1 against its parts in plain torch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import shufflenet_v2_x1_0

from selfdistill.models.cifar import NETWORKS
from selfdistill.models.cifar.shufflenet import GroupedUnit, HalvingUnit, SplitUnit, shuffle


@given(st.integers(1, 4), st.integers(1, 4))
def test_shuffle_is_torchs(groups, size):
    x = torch.arange(2.0 * groups * size * 6).reshape(2, groups * size, 2, 3)
    assert torch.equal(shuffle(x, groups), nn.ChannelShuffle(groups)(x))


def test_second_version_equals_torchvision_behind_the_stem():
    torch.manual_seed(0)
    ours = NETWORKS["shufflenet_v2"](num_classes=10)
    reference = shufflenet_v2_x1_0(num_classes=10)
    reference.conv1[0], reference.maxpool = nn.Conv2d(3, 24, 1, bias=False), nn.Identity()
    values = ours.state_dict().values()
    reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), reference(images))


def convolve(part, x, stride=1, groups=1):
    padding = part.conv.weight.shape[-1] // 2
    x = F.conv2d(x, part.conv.weight, stride=stride, padding=padding, groups=groups)
    return F.batch_norm(x, None, None, part.bn.weight, part.bn.bias, training=True)


@pytest.mark.parametrize("halve", [False, True])
def test_unit_of_the_first_version_step_by_step(halve):
    torch.manual_seed(0)
    unit = GroupedUnit(24, 36 if halve else 24, (3, 3), halve=halve)
    x = torch.randn(4, 24, 8, 8)
    inner = (36 - 24) // 4 if halve else 24 // 4
    y = F.relu(convolve(unit.squeeze, x, groups=3))
    y = nn.ChannelShuffle(3)(y)
    y = F.relu(convolve(unit.depthwise, y, stride=2 if halve else 1, groups=inner))
    y = convolve(unit.expand, y, groups=3)
    want = torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1).relu() if halve else (x + y).relu()
    torch.testing.assert_close(unit(x), want)


def test_first_unit_of_all_keeps_its_input_in_one_group():
    with torch.device("meta"):
        network = NETWORKS["shufflenet_v1"](num_classes=10)
    units = [m for m in network.modules() if isinstance(m, GroupedUnit)]
    assert [u.squeeze.conv.groups for u in units] == [1] + [3] * 15
    assert [u.groups for u in units] == [1] + [3] * 15
    assert all(u.expand.conv.groups == 3 for u in units)
    assert [units[i].squeeze.conv.out_channels for i in (0, 4, 12)] == [54, 60, 120]


def test_split_unit_leaves_half_of_the_channels_alone():
    x = torch.randn(2, 6, 4, 4)
    assert torch.equal(SplitUnit(6)(x)[:, ::2], x[:, :3])


def test_halving_unit_uses_all_channels_twice():
    unit = HalvingUnit(5, 8)
    assert unit(torch.randn(2, 5, 8, 8)).shape == (2, 8, 4, 4)
    assert unit.short.depthwise.conv.in_channels == unit.branch.first.conv.in_channels == 5
