"""Parameters and multiply-adds against the literature and closed forms."""

import pytest
import torch
from torch import nn
from torchvision import models

from selfdistill.core import METHODS
from selfdistill.costs.macs import NetworkCost, network_cost
from selfdistill.models import build
from selfdistill.modules.exits import Exits
from selfdistill.taps import Taps
from selfdistill.tasks import Classification

IMAGE = torch.zeros(2, 3, 32, 32)
RESNET18 = NetworkCost(11_220_132, 555_417_600 + 512 * 100)
HEAD = 51_300  # 512 features to 100 classes


@pytest.fixture(scope="module")
def exits_of_resnet18():
    task = Classification([str(i) for i in range(100)], IMAGE)
    student = Taps(build("cifar/resnet18", num_classes=100), example=IMAGE)
    return Exits(student, task, "byot").predictors(student)


def test_a_convolution_and_a_linear_layer():
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 64, 2)
    )
    macs = 64 * 5 * 3 * 9 + 5 * 64 * 2
    assert network_cost(network, torch.zeros(4, 3, 8, 8)) == NetworkCost(
        5 * 3 * 9 + 5 + 10 + 640 + 2, macs
    )


def test_grouped_and_strided_convolutions():
    network = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4, bias=False)
    assert network_cost(network, torch.zeros(1, 8, 8, 8)) == NetworkCost(
        16 * 2 * 9, 16 * 16 * 2 * 9
    )


def test_resnet18(exits_of_resnet18):
    assert network_cost(exits_of_resnet18["student"], IMAGE) == RESNET18


@pytest.mark.parametrize(
    ("name", "parameters", "millions"),
    [
        # millions of multiply-adds of the trunk and of the bottleneck
        ("exit1", 1_325_732, 152.8 + 26.21),
        ("exit2", 1_073_060, 287.0 + 9.44),
        ("exit3", 2_775_104 + 166_144 + HEAD, 421.2 + 4.19),
    ],
)
def test_early_exits_of_resnet18(name, parameters, millions, exits_of_resnet18):
    spent = network_cost(exits_of_resnet18[name], IMAGE)
    assert spent.parameters == parameters
    assert spent.macs / 1e6 == pytest.approx(millions + 0.0512, abs=0.1)


def test_third_exit_saves_a_quarter(exits_of_resnet18):
    spent = network_cost(exits_of_resnet18["exit3"], IMAGE)
    assert spent.parameters == 2_992_548
    assert spent.macs / 1e6 == pytest.approx(425.4, abs=0.1)
    assert spent.macs / RESNET18.macs == pytest.approx(0.766, abs=1e-3)


def vit_macs(patches: int, layers: int, width: int, mlp: int, classes: int) -> int:
    """Patches, then projections, both products of attention, and the MLP, then the classifier."""
    n = patches + 1
    layer = 3 * n * width**2 + 2 * n**2 * width + n * width**2 + 2 * n * width * mlp
    return patches * 3 * 16 * width + layers * layer + width * classes


def test_attention_counts():
    import timm

    size = {"embed_dim": 16, "num_heads": 2, "depth": 2, "mlp_ratio": 2, "num_classes": 4}
    network = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=4, **size)
    parameters = sum(p.numel() for p in network.parameters())
    want = NetworkCost(parameters, vit_macs(16, 2, 16, 32, 4))
    assert network_cost(network, torch.zeros(1, 3, 16, 16)) == want


def test_attention_of_torch_itself_counts():
    """`nn.MultiheadAttention` has a fused path of its own when no gradient is asked for."""
    size = {"hidden_dim": 16, "num_heads": 2, "num_layers": 2, "mlp_dim": 32, "num_classes": 4}
    network = models.VisionTransformer(16, 4, **size)
    parameters = sum(p.numel() for p in network.parameters())
    want = NetworkCost(parameters, vit_macs(16, 2, 16, 32, 4))
    assert network_cost(network, torch.zeros(1, 3, 16, 16)) == want


def test_what_does_not_run_is_free():
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 99, 1)

        def forward(self, x):
            return self.used(x)

    assert network_cost(Half(), torch.zeros(1, 3, 4, 4)) == NetworkCost(8, 96)


@pytest.mark.parametrize("pack", [lambda x: (x, x), lambda x: {"a": x, "b": [x]}])
def test_outputs_may_be_nested(pack):
    class Packed(nn.Conv2d):
        def forward(self, x):
            return pack(super().forward(x))

    assert network_cost(Packed(3, 2, 1), torch.zeros(1, 3, 4, 4)) == NetworkCost(8, 96)


def test_counting_leaves_the_network_alone(tiny_net):
    tiny_net.train()
    tiny_net.stage1.eval().requires_grad_(False)
    modes = [m.training for m in tiny_net.modules()]
    requires_grad = [p.requires_grad for p in tiny_net.parameters()]
    before = {k: v.clone() for k, v in tiny_net.state_dict().items()}
    total = network_cost(tiny_net, torch.randn(2, 3, 16, 16)).parameters
    assert total == sum(p.numel() for p in tiny_net.parameters())  # frozen ones count, too
    assert [m.training for m in tiny_net.modules()] == modes
    assert [p.requires_grad for p in tiny_net.parameters()] == requires_grad
    assert all(p.grad is None for p in tiny_net.parameters())
    assert all(torch.equal(v, before[k]) for k, v in tiny_net.state_dict().items())


def test_counts_inside_no_grad(tiny_net):
    want = network_cost(tiny_net, torch.zeros(1, 3, 16, 16))
    with torch.no_grad():
        assert network_cost(tiny_net, torch.zeros(1, 3, 16, 16)) == want


def test_critics_and_exits_cost_the_student_nothing(tiny_net, tiny_task):
    plain = network_cost(tiny_net, tiny_task.example)
    method = METHODS["muse"](Taps(tiny_net, example=tiny_task.example), tiny_task)
    assert network_cost(method.predictors()["student"], tiny_task.example) == plain
