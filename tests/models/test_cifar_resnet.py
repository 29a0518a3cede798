"""Residual networks against torchvision's with their stem changed."""

import pytest
import torch
import torchvision
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models.resnetv2 import DownsampleConv, PreActBasic
from torch import nn

from selfdistill.models.cifar import NETWORKS
from selfdistill.models.cifar.resnet import BasicBlock, PreActBlock, ResNet

LITERATURE = {  # millions at 10 classes, He et al. 2016, table 6, with projections: the same digits
    "resnet20": 0.27,
    "resnet32": 0.46,
    "resnet44": 0.66,
    "resnet56": 0.85,
    "resnet110": 1.7,
}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_equals_torchvision(name):
    torch.manual_seed(0)
    ours = NETWORKS[name](num_classes=10)
    with torch.device("meta"):
        reference = torchvision.models.get_model(name, num_classes=10)
        reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        reference.maxpool = nn.Identity()
    values = ours.state_dict().values()
    reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)), assign=True)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), reference.eval()(images))


@pytest.mark.parametrize("name", LITERATURE)
def test_parameters_at_ten_classes(name):
    with torch.device("meta"):
        total = sum(p.numel() for p in NETWORKS[name](num_classes=10).parameters())
    assert total / 1e6 == pytest.approx(LITERATURE[name], rel=0.03)


@pytest.mark.parametrize(("width", "stride"), [(16, 1), (16, 2), (24, 1), (24, 2)])
def test_block_with_preactivation_is_timms_but_for_the_plain_shortcut(width, stride):
    torch.manual_seed(0)
    ours = PreActBlock(16, width, stride)
    layers = {"conv_layer": create_conv2d, "norm_layer": BatchNormAct2d}
    reference = PreActBasic(16, width, stride=stride, proj_layer=DownsampleConv, **layers)
    pairs = [("norm.bn", "norm1"), ("residual.conv1", "conv1"), ("residual.norm.bn", "norm2")]
    pairs.append(("residual.conv2", "conv2"))
    if reference.downsample is not None:
        pairs.append(("shortcut", "downsample.conv"))
    for own_network, other in pairs:
        ours.get_submodule(own_network).load_state_dict(reference.get_submodule(other).state_dict())
    x = torch.randn(4, 16, 8, 8)
    want = reference(x)
    if reference.downsample is None:  # timm, as the paper, hands the input itself on
        want = want - x + ours.norm(x)
    torch.testing.assert_close(ours(x), want)


def test_preactivation_pools_plain_sums():
    torch.manual_seed(0)
    network = ResNet(PreActBlock, (1, 1, 1, 1), (4, 4, 4, 4), num_classes=3).eval()
    sums = []
    network.layer4.register_forward_hook(lambda _, __, out: sums.append(out))
    logits = network(torch.randn(2, 3, 32, 32))
    assert sums[0].lt(0).any()
    torch.testing.assert_close(logits, network.fc(sums[0].mean((2, 3))))


@pytest.mark.parametrize(("name", "blocks"), [("resnet8x4", 1), ("resnet32x4", 5)])
def test_quadrupled_width_starts_from_a_double_stem(name, blocks):
    with torch.device("meta"):
        network = NETWORKS[name](num_classes=100)
    assert network.stem.conv.out_channels == 32
    stages = [network.layer1, network.layer2, network.layer3]
    assert [len(stage) for stage in stages] == [blocks] * 3
    assert network.layer1[0].shortcut.conv.stride == (1, 1)  # the width changes, the size does not


def test_initialization_is_he_normal_by_fan_out():
    torch.manual_seed(0)
    network = ResNet(BasicBlock, (1, 1), (64, 128), num_classes=2)
    weight = network.layer2[0].residual[0].conv.weight  # (128, 64, 3, 3)
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    norm = network.layer2[0].residual[1].bn
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()


def test_keys_of_the_state_are_clean():
    keys = NETWORKS["resnet8"](num_classes=2).state_dict()
    assert {"stem.conv.weight", "layer2.0.shortcut.bn.bias", "fc.weight"} <= keys.keys()
    assert "layer1.0.residual.1.conv.weight" in keys
