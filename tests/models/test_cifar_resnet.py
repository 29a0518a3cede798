"""Residual networks against torchvision's with their stem changed."""

import pytest
import torch
import torchvision
from torch import nn

from selfdistill.models.cifar import NETWORKS
from selfdistill.models.cifar.resnet import BasicBlock, ResNet

LITERATURE = {  # millions at 10 classes, He et al. 2016, table 6, with projections: the same digits
    "resnet20": 0.27,
    "resnet32": 0.46,
    "resnet56": 0.85,
    "resnet110": 1.7,
}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_equals_torchvision(name):
    torch.manual_seed(0)
    ours = NETWORKS[name](num_classes=10)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=10)
        theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        theirs.maxpool = nn.Identity()
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)), assign=True)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize("name", LITERATURE)
def test_parameters_at_ten_classes(name):
    with torch.device("meta"):
        total = sum(p.numel() for p in NETWORKS[name](num_classes=10).parameters())
    assert total / 1e6 == pytest.approx(LITERATURE[name], rel=0.03)


def test_initialisation_is_he_normal_by_fan_out():
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
