"""MobileNetV2 against torchvision's with other strides and activations."""

import pytest
import torch
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual as Reference
from torchvision.models.mobilenetv2 import MobileNetV2 as ReferenceNetwork

from selfdistill.models.cifar import NETWORKS
from selfdistill.models.cifar.mobilenet import InvertedResidual, MobileNetV2


def share(reference, ours):
    """Give theirs the weights of ours and the activation of ours."""
    values = ours.state_dict().values()
    reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)))
    for name, module in list(reference.named_modules()):
        if isinstance(module, nn.ReLU6):
            reference.set_submodule(name, nn.ReLU())


@pytest.mark.parametrize(("out_channels", "stride"), [(8, 1), (8, 2), (12, 1), (12, 2)])
def test_block_equals_torchvision(out_channels, stride):
    torch.manual_seed(0)
    ours = InvertedResidual(8, out_channels, stride, 6)
    reference = Reference(8, out_channels, stride, 6)
    share(reference, ours)
    x = torch.randn(4, 8, 9, 9)
    torch.testing.assert_close(ours(x), reference(x))


def test_equals_torchvision_behind_the_first_stage():
    """Torchvision's first stage lacks the convolution that expands by 1; it is given ours."""
    torch.manual_seed(0)
    ours = MobileNetV2(0.5, num_classes=10)
    stages = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2)]
    stages += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    reference = ReferenceNetwork(10, 0.5, [list(s) for s in stages], round_nearest=1)
    reference.features[1] = InvertedResidual(16, 8, 1, 1)
    share(reference, ours)
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), reference.eval()(images))


def test_the_networks_name_means_half_the_width():
    with torch.device("meta"):
        network = NETWORKS["mobilenet_v2"](num_classes=10)
    assert network.features.stem.conv.out_channels == 16
    assert network.features.layer7[0].residual.shrink.conv.out_channels == 160
    assert network.fc.in_features == 1280
