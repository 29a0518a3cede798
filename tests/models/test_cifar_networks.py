"""What every network of the cifar/ family promises: its size, its cuts, its outputs."""

from collections.abc import Iterable

import pytest
import torch
from torch import nn

from selfdistill.costs.macs import network_cost
from selfdistill.models.cifar import NETWORKS
from selfdistill.models.cifar.densenet import DenseNet
from selfdistill.models.cifar.mobilenet import MobileNetV2
from selfdistill.models.cifar.nasnet import NASNet
from selfdistill.models.cifar.resnet import PreActBlock, ResNet
from selfdistill.models.cifar.wide_resnet import WideResNet

# All parameters and those of the convolutions with their biases, at 100 classes. The CRD
# benchmark's code prints none: those of its networks follow from the widths in it; for resnet32x4,
# wrn_16_2 and wrn_40_2 other public repositories print the same. Those of resnet14, resnet44,
# wrn_16_1 and preact_resnet18 are ours alone.
PARAMETERS = {
    "densenet121": (7_048_548, 6_862_528),
    "efficientnet_b0": (4_135_648, 3_965_532),
    "mobilenet_v2": (812_836, 666_368),
    "nasnet": (4_308_624, 4_167_108),
    "preact_resnet18": (11_217_444, 11_159_232),
    "resnet8": (83_892, 76_720),
    "resnet14": (181_108, 173_488),
    "resnet20": (278_324, 270_256),
    "resnet32": (472_756, 463_792),
    "resnet44": (667_188, 657_328),
    "resnet56": (861_620, 850_864),
    "resnet110": (1_736_564, 1_721_776),
    "resnet8x4": (1_233_540, 1_205_088),
    "resnet32x4": (7_433_860, 7_398_240),
    "resnet10_w16": (320_436, 306_096),
    "resnet10_w32": (1_252_100, 1_223_520),
    "resnet18_w16": (713_076, 697_776),
    "resnet18_w32": (2_820_740, 2_790_240),
    "resnet18": (11_220_132, 11_159_232),
    "resnet34": (21_328_292, 21_259_968),
    "resnet50": (23_705_252, 23_447_232),
    "resnet101": (42_697_380, 42_387_136),
    "resnet152": (58_341_028, 57_984_704),
    "shufflenet_v1": (949_258, 829_422),
    "shufflenet_v2": (1_355_528, 1_236_848),
    "vgg8": (3_965_028, 3_910_784),
    "vgg13": (9_462_180, 9_404_992),
    "vgg11_bn": (9_277_284, 9_220_480),
    "vgg13_bn": (9_462_180, 9_404_992),
    "vgg16_bn": (14_774_436, 14_714_688),
    "vgg19_bn": (20_086_692, 20_024_384),
    "wrn_16_1": (180_916, 173_488),
    "wrn_16_2": (703_284, 688_560),
    "wrn_28_10": (36_536_884, 36_454_832),
    "wrn_40_1": (569_780, 560_560),
    "wrn_40_2": (2_255_156, 2_236_848),
}

# parameters and millions of multiply-adds at 100 classes in the tables of another collection,
# https://github.com/osmr/imgclsmob, which also counts what batch norms and ReLUs do
COLLECTION = {
    "resnet20": (278_324, 41.30),
    "resnet56": (861_620, 127.06),
    "resnet110": (1_736_564, 255.71),
    "wrn_28_10": (36_536_884, 5247.04),
}

# millions of convolution parameters that MUSE reports, https://arxiv.org/abs/2110.12606, table 3,
# with the digits that the networks of the table have behind the printed ones
PAPER = {
    "vgg19_bn": 20.019,
    "resnet18": 11.159,
    "resnet34": 21.26,
    "resnet50": 23.447,
    "resnet101": 42.39,
    "resnet152": 57.98,
    "efficientnet_b0": 3.956,
}

BOTTLENECK = [(256, 32), (512, 16), (1024, 8), (2048, 4)]
THIN = [(16, 32), (16, 32), (32, 16), (64, 8)]
SHAPES = {
    "densenet121": [(256, 32), (512, 16), (1024, 8), (1024, 4)],
    "efficientnet_b0": [(40, 28), (112, 14), (192, 7), (1280, 7)],
    "nasnet": [(264, 32), (528, 16), (704, 8), (1056, 8)],
    "resnet18": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "resnet34": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "resnet10_w16": [(16, 32), (32, 16), (64, 8), (128, 4)],
    "resnet18_w32": [(32, 32), (64, 16), (128, 8), (256, 4)],
    "resnet8x4": [(32, 32), (64, 32), (128, 16), (256, 8)],
    "resnet32x4": [(32, 32), (64, 32), (128, 16), (256, 8)],
    "preact_resnet18": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "mobilenet_v2": [(12, 16), (16, 8), (48, 4), (1280, 2)],
    "shufflenet_v1": [(24, 32), (240, 16), (480, 8), (960, 4)],
    "shufflenet_v2": [(24, 32), (116, 16), (232, 8), (1024, 4)],
    "vgg8": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "vgg13": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "wrn_16_1": [(16, 32), (16, 32), (32, 16), (64, 8)],
    "wrn_16_2": [(16, 32), (32, 32), (64, 16), (128, 8)],
    "wrn_28_10": [(16, 32), (160, 32), (320, 16), (640, 8)],
    "wrn_40_1": [(16, 32), (16, 32), (32, 16), (64, 8)],
    "wrn_40_2": [(16, 32), (32, 32), (64, 16), (128, 8)],
    "vgg11_bn": [(64, 16), (128, 8), (256, 4), (512, 2)],
    "vgg19_bn": [(64, 16), (128, 8), (256, 4), (512, 2)],
    **dict.fromkeys(["resnet50", "resnet101", "resnet152"], BOTTLENECK),
    **dict.fromkeys([f"resnet{6 * n + 2}" for n in (1, 2, 3, 5, 7, 9, 18)], THIN),
}

SMALL = {
    "resnet": lambda **k: NETWORKS["resnet10_w16"](num_classes=5, **k),
    "thin resnet": lambda **k: NETWORKS["resnet8"](num_classes=5, **k),
    "preact": lambda **k: ResNet(PreActBlock, (2, 1, 1, 1), (8, 8, 16, 16), num_classes=5, **k),
    "wide resnet": lambda **k: WideResNet(16, 1, num_classes=5, **k),
    "mobilenet": lambda **k: MobileNetV2(0.25, num_classes=5, **k),
    "shufflenet": lambda **k: NETWORKS["shufflenet_v1"](num_classes=5, **k),
    "shufflenet v2": lambda **k: NETWORKS["shufflenet_v2"](num_classes=5, **k),
    "vgg": lambda **k: NETWORKS["vgg11_bn"](num_classes=5, **k),
    "vgg of the benchmark": lambda **k: NETWORKS["vgg8"](num_classes=5, **k),
    "densenet": lambda **k: DenseNet((2, 1, 1, 2), 4, num_classes=5, **k),
    "nasnet": lambda **k: NASNet(1, 4, num_classes=5, **k),
}


def shapes_only(name, **keywords):
    """The network without values: its parameters and features have shapes and cost nothing."""
    with torch.device("meta"):
        return NETWORKS[name](**{"num_classes": 100, **keywords})


def convolution_parameters(network):
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    return sum(p.numel() for m in convolutions for p in m.parameters())


def listen(network, take):
    """Collect `take(output)` of the cuts in the order in which they fire."""
    fired = []
    for cut in network.cuts:
        network.get_submodule(cut).register_forward_hook(
            lambda _, __, out, cut=cut: fired.append((cut, take(out)))
        )
    return fired


# The same blocks as in their shallower kin, only more of them.
DEEP = ("resnet44", "resnet56", "resnet101", "resnet110", "resnet152")
DEEP += ("wrn_28_10", "wrn_40_1", "wrn_40_2", "vgg19_bn")


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    """A test of every network; the deep ones in the slow half."""
    marked = [pytest.param(n, marks=pytest.mark.slow if n in DEEP else ()) for n in names]
    return pytest.mark.parametrize("name", marked)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_the_literatures(name):
    network = shapes_only(name)
    total = sum(p.numel() for p in network.parameters())
    assert (total, convolution_parameters(network)) == PARAMETERS[name]


@pytest.mark.parametrize("name", COLLECTION)
def test_size_and_work_are_those_of_another_collection(name):
    with torch.device("meta"):
        spent = network_cost(NETWORKS[name](num_classes=100), torch.empty(1, 3, 32, 32))
    assert spent.parameters == COLLECTION[name][0]
    assert spent.macs / 1e6 == pytest.approx(COLLECTION[name][1], rel=0.015)


@pytest.mark.parametrize("name", PAPER)
def test_convolutions_are_the_papers(name):
    millions = convolution_parameters(shapes_only(name)) / 1e6
    assert millions == pytest.approx(PAPER[name], rel=0.005)


@each(SHAPES)
def test_cuts_fire_once_in_order_with_the_shapes_of_the_table(name):
    network, size = shapes_only(name), 224 if name == "efficientnet_b0" else 32
    fired = listen(network, lambda out: tuple(out.shape))
    network(torch.empty(2, 3, size, size, device="meta"))
    want = [(2, channels, side, side) for channels, side in SHAPES[name]]
    assert fired == list(zip(network.cuts, want, strict=True))


@pytest.mark.parametrize("size", [32, pytest.param(64, marks=pytest.mark.slow)])
@each(NETWORKS)
def test_outputs_are_one_per_class_for_any_number_of_channels(name, size):
    network = shapes_only(name, num_classes=7, in_channels=1)
    assert network(torch.empty(3, 1, size, size, device="meta")).shape == (3, 7)


TINY = ["resnet10_w16", "resnet8", "nasnet", "densenet121", "wrn_16_1", "mobilenet_v2", "vgg8"]


@pytest.mark.parametrize("name", [*TINY, "preact_resnet18", "shufflenet_v1", "shufflenet_v2"])
def test_runs_on_images_of_8x8(name):
    network = shapes_only(name)
    assert network(torch.empty(2, 3, 8, 8, device="meta")).shape == (2, 100)


@each(NETWORKS)
def test_fx_can_trace(name):
    torch.fx.symbolic_trace(shapes_only(name))


class Chain(torch.fx.Tracer):
    """Sees what contains a cut from inside and all else from outside."""

    def __init__(self, cuts):
        super().__init__()
        parts = [cut.split(".") for cut in cuts]
        self.open = {".".join(p[:i]) for p in parts for i in range(1, len(p))}

    def is_leaf_module(self, module, name):
        return name not in self.open


@each(sorted(NETWORKS.keys() - {"nasnet"}))  # its cells look further back
def test_nothing_bypasses_a_cut(name):
    network = shapes_only(name)
    nodes = list(Chain(network.cuts).trace(network).nodes)
    places = [[i for i, node in enumerate(nodes) if node.target == cut] for cut in network.cuts]
    assert [len(result) for result in places] == [1] * 4
    for [folder] in places:
        behind = set(nodes[folder:])
        assert all(behind.issuperset(node.all_input_nodes) for node in nodes[folder + 1 :])


@pytest.mark.parametrize("kind", SMALL)
def test_gradient_reaches_every_parameter(kind):
    torch.manual_seed(0)
    network = SMALL[kind]()
    network(torch.randn(4, 3, 32, 32)).logsumexp(1).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("conv.bias"):  # batch norm takes that one away
            assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", SMALL)
def test_features_stay_what_they_were_when_handed_out(kind):
    torch.manual_seed(0)
    network = SMALL[kind]()
    fired = listen(network, lambda out: (out, out.detach().clone()))
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    for cut, (kept, then) in fired:
        assert torch.equal(kept, then), cut


@pytest.mark.parametrize("kind", SMALL)
def test_same_seed_same_network(kind):
    def make():
        torch.manual_seed(3)
        return SMALL[kind]().state_dict()

    first, second = make(), make()
    assert all(torch.equal(first[k], second[k]) for k in first)
