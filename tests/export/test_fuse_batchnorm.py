"""Fused BatchNorms leave the outputs unchanged; those that cannot be fused stay."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from selfdistill.export.fuse_batchnorm import fuse_batchnorm
from selfdistill.models import build


def lively(network):
    """BatchNorms as training leaves them."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    nn.init.uniform_(tensor, *((0.5, 2) if "var" in name else (-1, 1)))
    return network.eval()


class Parts(nn.Module):
    """One convolution and one norm, in an order that a subclass sets."""

    def __init__(self, convolution=None, norm=None):
        super().__init__()
        self.convolution = convolution or nn.Conv2d(3, 4, 3)
        self.norm = norm or nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.convolution(x))


class Twice(Parts):
    def forward(self, x):
        x = self.convolution(x)
        return self.norm(x) + x


class Again(Parts):
    def forward(self, x):
        return self.norm(self.norm(self.convolution(x)))


class Between(Parts):
    def forward(self, x):
        return self.norm(F.relu(self.convolution(x)))


class Branching(nn.Module):
    """Code that fx cannot follow, around parts that it can."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm = Parts(), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.inner(x)
        return self.norm(x) if x.mean() > -1e9 else x


class Standardized(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


SUMS = nn.BatchNorm2d(4, track_running_stats=False)


@pytest.mark.parametrize(
    ("network", "num_fused", "num_remaining"),
    [
        (Parts(), 1, 0),
        (Parts(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)), 1, 0),
        (Twice(), 0, 1),
        (Again(), 0, 1),
        (Between(), 0, 1),
        (Branching(), 1, 1),
        (Parts(Standardized(3, 4, 3)), 0, 1),
        (Parts(weight_norm(nn.Conv2d(3, 4, 3))), 0, 1),
        (Parts(norm=SUMS), 0, 1),
        (build("cifar/resnet8", num_classes=5), 9, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_same_logits(network, num_fused, num_remaining):
    lively(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fused = fuse_batchnorm(network)
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(fused.network(x), network(x), rtol=1e-4, atol=1e-4)
    assert (fused.num_fused, fused.num_remaining) == (num_fused, num_remaining)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_in_training_nothing_is_fused():
    assert fuse_batchnorm(Parts().train()).num_fused == 0
