"""Plain networks against torchvision's feature extractors."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import make_layers

from selfdistill.models.cifar import NETWORKS


@pytest.mark.parametrize("name", ["vgg11_bn", "vgg19_bn"])
def test_features_equal_torchvisions(name):
    torch.manual_seed(0)
    ours = NETWORKS[name](num_classes=10).features
    with torch.device("meta"):
        reference = torchvision.models.get_model(name, num_classes=10).features
    values = ours.state_dict().values()
    reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)), assign=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), reference.eval()(images))


def test_last_cut_comes_before_the_last_pool():
    network = NETWORKS["vgg11_bn"](num_classes=10)
    assert network.cuts[-1] == "features.block5"
    assert [n for n, _ in network.features.named_children()][-2:] == ["block5", "pool5"]


@pytest.mark.parametrize(("size", "pools"), [(32, 3), (64, 4)])
@pytest.mark.parametrize(("name", "depth"), [("vgg8", 1), ("vgg13", 2)])
def test_the_benchmarks_pools_end_at_4x4(name, depth, size, pools):
    torch.manual_seed(0)
    ours = NETWORKS[name](num_classes=10)
    layout = []
    for i, width in enumerate((64, 128, 256, 512, 512), start=1):
        layout += [width] * depth + ["M"] * (i <= pools)
    reference = make_layers(layout, batch_norm=True)
    values = ours.features.state_dict().values()
    reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)))
    reference = nn.Sequential(reference, nn.AdaptiveAvgPool2d(1), nn.Flatten(), ours.fc)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), reference.eval()(images))
