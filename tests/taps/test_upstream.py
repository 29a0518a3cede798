"""What of a network lies before a module."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from selfdistill.core import ConfigError
from selfdistill.models import build
from selfdistill.taps.upstream import find_upstream


class Branches(nn.Module):
    """A token, two branches that meet, and a head; one dropout serves both ends."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(4))
        self.late = nn.Parameter(torch.ones(4))
        self.left, self.right, self.body, self.head = (nn.Linear(4, 4) for _ in range(4))
        self.drop, self.unused = nn.Dropout(0.5), nn.Linear(2, 2)

    def forward(self, x):
        right = self.right(x)  # runs first, and is used last
        x = self.body(self.drop(self.left(x + self.token)))
        return self.head(self.drop(x + self.late + right))


def names(network, parameters):
    return {name for name, parameter in network.named_parameters() if parameter in parameters}


def test_branches_are_told_apart_by_what_the_output_depends_on():
    network = Branches()
    upstream = find_upstream(network, ["left", "body"], torch.ones(2, 4))
    left = {"token", "left.weight", "left.bias"}
    assert names(network, upstream["left"].parameters) == left
    body = {*left, "body.weight", "body.bias"}
    assert names(network, upstream["body"].parameters) == body
    assert upstream["body"].modules == [network.right, network.left, network.body]


def test_stages_of_a_resnet():
    network = resnet18(num_classes=3)
    upstream = find_upstream(network, ["layer2"], torch.zeros(2, 3, 64, 64))["layer2"]
    before = ("conv1", "bn1", "layer1", "layer2")
    want = {n for n, _ in network.named_parameters() if n.startswith(before)}
    assert names(network, upstream.parameters) == want
    inside = {n for n, m in network.named_modules() if m in upstream.modules}
    assert {"bn1", "maxpool", "layer2", "layer2.0.downsample.1"} <= inside
    assert not inside & {"layer3", "fc", ""}


def test_nothing_changes():
    network = build("timm/vit_tiny_patch16_224", num_classes=3)
    network.train()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    upstream = find_upstream(network, ["blocks.1"], torch.rand(2, 3, 224, 224))["blocks.1"]
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())
    assert all(m.training for m in network.modules())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    inside = names(network, upstream.parameters)
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.1.mlp.fc2.bias"} <= inside
    assert not any(n.startswith(("blocks.2", "norm", "head")) for n in inside)


@pytest.mark.parametrize(("name", "match"), [("bodi", "'body'"), ("unused", "does not call")])
def test_modules_that_are_not_there_are_refused(name, match):
    with pytest.raises(ConfigError, match=match):
        find_upstream(Branches(), [name], torch.ones(2, 4))
