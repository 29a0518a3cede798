"""Learning rates by depth, and what is frozen."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from selfdistill.core import ConfigError
from selfdistill.models import build
from selfdistill.recipe.build_method import build_method
from selfdistill.recipe.fine_tuning import lr_scales, tune_network
from selfdistill.recipe.schema import parse
from selfdistill.taps import find_taps
from selfdistill.tasks import Classification


def task(side: int) -> Classification:
    return Classification("abc", torch.zeros(2, 3, side, side))


@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet18", 64), ("vit_tiny_patch16_224", 224), ("efficientnet_lite0", 64)],
)
def test_scales_equal_timms(name, side):
    network = timm.create_model(name, num_classes=3)
    groups = param_groups_layer_decay(network, layer_decay=0.7)
    want = {p: g["lr_scale"] for g in groups for p in g["params"]}
    assert lr_scales(network, torch.zeros(2, 3, side, side), 0.7) == want
    assert len(set(want.values())) > 3


def test_other_networks_are_counted_by_their_taps():
    network = build("cifar/resnet10_w16", num_classes=3)
    scales = lr_scales(network, torch.zeros(2, 3, 32, 32), 0.5)
    by_name = {name: scales[p] for name, p in network.named_parameters()}
    head = [name for name, scale in by_name.items() if scale == 1.0]
    assert head == ["fc.weight", "fc.bias"]
    taps = find_taps(network, torch.zeros(2, 3, 32, 32))
    for depth, tap in enumerate(taps):
        last = [name for name in by_name if name.startswith(f"{tap}.")][-1]
        assert by_name[last] == 0.5 ** (len(taps) - depth)


def test_the_head_alone_gets_its_factor():
    network = timm.create_model("resnet18", num_classes=3)
    scales = lr_scales(network, torch.zeros(2, 3, 64, 64), 1.0, 10.0)
    by_name = {name: scales[p] for name, p in network.named_parameters()}
    assert {n for n, s in by_name.items() if s == 10.0} == {"fc.weight", "fc.bias"}
    assert {s for n, s in by_name.items() if not n.startswith("fc")} == {1.0}


def test_a_network_without_stages_is_counted_by_the_taps_that_are_named():
    layers = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    example = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ConfigError, match="no stages were found"):
        lr_scales(network, example, 0.5, 3.0)
    scales = lr_scales(network, example, 0.5, 3.0, ["1", "3"])
    assert [scales[network[i].weight] for i in (0, 2, 6)] == [0.25, 0.5, 3.0]
    recipe = parse({"head_lr_factor": 3.0, "taps": "1, 3"})
    method = build_method("ce", network, task(8))
    found = tune_network(recipe, network, method, task(8), given=True).lr_scales
    assert found[network[6].weight] == 3.0


def tuned(network, side=32, *, method="exits", given=False, **keys):
    recipe = parse({"model": "cifar/resnet10_w16", "method": method, "weights": "x.pth", **keys})
    built = build_method(method, network, task(side))
    return built, tune_network(recipe, network, built, task(side), given=given)


def test_exits_on_frozen_features_go_on_training():
    network = build("cifar/resnet10_w16", num_classes=3)
    method, tuning = tuned(network, freeze_until="layer2")
    before = ("stem", "layer1", "layer2")
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in network.named_parameters() if n.startswith(before)}
    heads = {*method.parameters()} - {*network.parameters()}
    assert heads
    assert all(p.requires_grad for p in heads)
    method.train()
    tuning.hold()
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (not name.startswith(before)), name
    inside = {*network.modules()}
    assert all(module.training for module in method.modules() if module not in inside)


class Branched(nn.Module):
    """A branch runs before the body, and learns on beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.side = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Dropout(0.5))
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.Conv2d(4, 4, 1))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(x)
        side = self.side(x)
        body = self.body(x)
        body += side  # in place
        return self.fc(body.mean((2, 3)))


def test_a_branch_beside_what_is_frozen_goes_on():
    network = Branched()
    recipe = parse({"freeze_until": "body"})
    method = build_method("ce", network, task(8))
    tuning = tune_network(recipe, network, method, task(8), given=True)
    assert {n for n, p in network.named_parameters() if p.requires_grad} == {
        *("side.0.weight", "side.0.bias", "fc.weight", "fc.bias"),
    }
    method.train()
    tuning.hold()
    still = {n for n, m in network.named_modules() if not m.training}
    assert still == {"drop", "body", "body.0", "body.1", "body.2"}


def test_a_module_of_the_users_needs_no_weights():
    network = build("cifar/resnet10_w16", num_classes=3)
    tuned(network, given=True, weights="", freeze_until="layer1")
    assert not next(network.parameters()).requires_grad


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"freeze_until": "layer1", "weights": ""}, "--freeze-until would keep random weights"),
        ({"batchnorm": "frozen", "weights": ""}, "--batchnorm frozen would keep random weights"),
        ({"freeze_until": "layer9"}, "no module 'layer9' .did you mean 'layer"),
        ({"freeze_until": ""}, ""),
    ],
)
def test_what_cannot_be_frozen_is_refused(keys, match):
    network = build("cifar/resnet10_w16", num_classes=3)
    if not match:
        assert tuned(network, **keys)[1] == ({}, [])
        return
    with pytest.raises(ConfigError, match=match):
        tuned(network, **keys)


@pytest.mark.parametrize(
    "keys", [{"layer_decay": 0.0}, {"layer_decay": 1.1}, {"head_lr_factor": 0.0},
             {"batchnorm": "freeze"}, {"optimizer": "sdg"}]
)  # fmt: skip
def test_values_without_sense_are_refused(keys):
    with pytest.raises(ConfigError):
        parse(keys)
