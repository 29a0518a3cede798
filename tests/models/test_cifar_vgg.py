"""Plain networks against torchvision's feature extractors."""

import pytest
import torch
import torchvision

from selfdistill.models.cifar import NETWORKS


@pytest.mark.parametrize("name", ["vgg11_bn", "vgg19_bn"])
def test_features_equal_torchvisions(name):
    torch.manual_seed(0)
    ours = NETWORKS[name](num_classes=10).features
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=10).features
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)), assign=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_last_cut_comes_before_the_last_pool():
    network = NETWORKS["vgg11_bn"](num_classes=10)
    assert network.cuts[-1] == "features.block5"
    assert [n for n, _ in network.features.named_children()][-2:] == ["block5", "pool5"]
