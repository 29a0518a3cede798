"""Dense networks against torchvision's with its stem changed."""

import torch
from torch import nn
from torchvision.models import DenseNet as Reference

from selfdistill.models.cifar.densenet import DenseLayer, DenseNet


def test_equals_torchvision():
    torch.manual_seed(0)
    depths, growth = (2, 3, 1, 2), 8
    ours = DenseNet(depths, growth, num_classes=10)
    reference = Reference(growth, depths, 2 * growth, num_classes=10)
    reference.features.conv0 = nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(reference.features, name, nn.Identity())
    values = ours.state_dict().values()
    reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), reference.eval()(images))


def test_layer_hands_its_input_on():
    layer, x = DenseLayer(6, 4), torch.randn(2, 6, 5, 5)
    out = layer(x)
    assert out.shape == (2, 10, 5, 5)
    assert torch.equal(out[:, :6], x)
