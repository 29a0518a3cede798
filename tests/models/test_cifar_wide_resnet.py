"""Wide residual networks against timm's networks with pre-activation."""

import pytest
import torch
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models import ResNetV2
from torch import nn

from selfdistill.models.cifar import NETWORKS
from selfdistill.models.cifar.wide_resnet import WideResNet

BLOCK = {
    "norm.bn": "norm1",
    "residual.conv1": "conv1",
    "residual.norm.bn": "norm2",
    "residual.conv2": "conv2",
    "shortcut": "downsample.conv",
}


def reference(blocks: int, widen: int) -> ResNetV2:
    widths = (16 * widen, 32 * widen, 64 * widen)
    layers = {"conv_layer": create_conv2d, "norm_layer": BatchNormAct2d}
    network = ResNetV2(
        (blocks,) * 3, widths, 10, stem_chs=16, basic=True, bottle_ratio=1.0, **layers
    )
    network.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    return network


@pytest.mark.parametrize(("depth", "widen"), [(16, 1), (22, 2)])
def test_equals_timm(depth, widen):
    torch.manual_seed(0)
    blocks = (depth - 4) // 6
    ours, reference_network = WideResNet(depth, widen, num_classes=10), reference(blocks, widen)
    reference_network.stem.load_state_dict(ours.stem.state_dict())
    reference_network.norm.load_state_dict(ours.norm.bn.state_dict())
    for i in range(3):
        for own_network, other in zip(
            ours.get_submodule(f"block{i + 1}"), reference_network.stages[i].blocks, strict=True
        ):
            for name in BLOCK if own_network.shortcut is not None else list(BLOCK)[:-1]:
                values = own_network.get_submodule(name).state_dict()
                other.get_submodule(BLOCK[name]).load_state_dict(values)
    weight, bias = ours.fc.state_dict().values()  # timm classifies by a 1×1 convolution
    reference_network.head.fc.load_state_dict({"weight": weight[:, :, None, None], "bias": bias})
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), reference_network(images))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("wrn")])
def test_name_says_depth_and_width(name):
    with torch.device("meta"):
        network = NETWORKS[name](num_classes=10)
    _, depth, widen = name.split("_")
    longest = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(longest) == int(depth) - 3  # the name also counts three shortcuts
    assert network.fc.in_features == 64 * int(widen)


def test_the_sum_before_the_last_norm_can_be_tapped():
    torch.manual_seed(0)
    network = WideResNet(10, 1, num_classes=2).eval()
    caught = {}
    for name in ("block3", "norm"):
        network.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: caught.update({name: out})
        )
    network(torch.randn(2, 3, 16, 16))
    assert caught["block3"].lt(0).any()
    torch.testing.assert_close(network.norm(caught["block3"]), caught["norm"])
