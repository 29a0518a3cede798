"""Cut networks against the networks themselves, and fresh copies against what they copy."""

import copy

import pytest
import timm
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from selfdistill.core import ConfigError
from selfdistill.models import build, convert_inputs, renormalize_inputs
from selfdistill.taps import Taps
from selfdistill.taps.fx_split import (
    reinitialized_copy,
    split_at,
    stage_functions,
    truncate_at,
)

NO_POSITION = {"img_size": 32, "patch_size": 8, "depth": 4, "embed_dim": 48, "num_heads": 2}
NETWORKS = {
    "resnet10_w16": lambda: build("cifar/resnet10_w16", num_classes=5, in_channels=3),
    "resnet8": lambda: build("cifar/resnet8", num_classes=5, in_channels=3),
    "vgg11_bn": lambda: build("cifar/vgg11_bn", num_classes=5, in_channels=3),
    "densenet121": lambda: build("cifar/densenet121", num_classes=5, in_channels=3),
    "efficientnet_b0": lambda: build("cifar/efficientnet_b0", num_classes=5, in_channels=3),
    "timm regnetx_002": lambda: timm.create_model("regnetx_002", num_classes=5),
    "timm convnext_atto": lambda: timm.create_model(
        "convnext_atto", num_classes=5, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)
    ),
    "timm vit_tiny": lambda: timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, **NO_POSITION
    ),
    "timm swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=5,
        img_size=32,
        window_size=2,
        embed_dim=12,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 2),
    ),
    "tv resnet18": lambda: models.resnet18(num_classes=5),
    "tv mobilenet_v2": lambda: models.mobilenet_v2(num_classes=5),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
some_networks = pytest.mark.parametrize("name", ["resnet8", "timm convnext_atto", "timm vit_tiny"])


def images(n: int = 3, side: int = 32) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def forward_features(name: str) -> Taps:
    torch.manual_seed(0)
    return Taps(NETWORKS[name](), example=images(2))


def run(parts: list[nn.Module], x: Tensor) -> Tensor:
    for part in parts:
        x = part(x)
    return x


@every_network
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_chain_is_the_network(name, training):
    taps = forward_features(name)
    network = taps.network
    parts = split_at(network, taps.names)
    assert len(parts) == len(taps.names) + 1
    for module in (network, *parts):
        module.train(training)
    before = {n: value.clone() for n, value in network.state_dict().items()}
    torch.manual_seed(1)
    want = network(images())
    after = {n: value.clone() for n, value in network.state_dict().items()}
    network.load_state_dict(before)
    torch.manual_seed(1)
    assert torch.equal(run(parts, images()), want)
    for n, value in network.state_dict().items():  # running statistics moved alike
        assert torch.equal(value, after[n]), n


@every_network
def test_each_part_takes_a_raw_feature(name):
    taps = forward_features(name)
    parts = split_at(taps.network, taps.names)
    taps.network.eval()
    out, features = taps.forward_features(images(), raw=True)
    values = [images(), *features.values(), out]
    for part, x, want in zip(parts, values, values[1:], strict=False):
        assert torch.equal(part(x), want)


@pytest.mark.parametrize("name", ["resnet10_w16", "timm vit_tiny"])
def test_chain_is_the_network_under_autocast(name):
    taps = forward_features(name)
    parts = split_at(taps.network, taps.names)
    taps.network.eval()
    with torch.autocast("cpu", torch.bfloat16):
        out = run(parts, images())
        assert torch.equal(out, taps.network(images()))
    assert out.dtype == torch.bfloat16


def test_chain_is_the_network_in_channels_last():
    taps = forward_features("resnet10_w16")
    taps.network.to(memory_format=torch.channels_last).eval()
    parts = split_at(taps.network, taps.names)
    x = images().to(memory_format=torch.channels_last)
    first = parts[0](x)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(run(parts[1:], first), taps.network(x))


@some_networks
def test_deep_copy_of_a_chain_is_independent(name):
    taps = forward_features(name)
    parts = copy.deepcopy(nn.ModuleList(split_at(taps.network, taps.names))).eval()
    taps.network.eval()
    assert torch.equal(run(list(parts), images()), taps.network(images()))
    ours = {p.data_ptr() for p in taps.network.parameters()}
    assert not ours & {p.data_ptr() for p in parts.parameters()}


@every_network
def test_parts_share_the_parameters_and_leave_no_trace(name):
    network = NETWORKS[name]().train()
    network.get_submodule(next(n for n, _ in network.named_children())).eval()
    modes = {module: module.training for module in network.modules()}
    keys, internal = list(network.state_dict()), set(vars(network))
    names = Taps(network, example=images(2)).names
    parts = split_at(network, names)
    assert {id(p) for part in parts for p in part.parameters()} == {
        id(p) for p in network.parameters()
    }
    assert all(module.training == mode for module, mode in modes.items())
    assert list(network.state_dict()) == keys
    assert set(vars(network)) == internal


def test_no_tap_is_the_network_whole():
    network = NETWORKS["resnet8"]().eval()
    (part,) = split_at(network, [])
    assert torch.equal(part(images()), network(images()))


@pytest.mark.slow
def test_compiles_once():
    torch._dynamo.reset()
    taps = forward_features("resnet8")
    parts = [reinitialized_copy(part) for part in split_at(taps.network, taps.names)]
    chain = nn.Sequential(*parts)
    want = copy.deepcopy(chain)
    compiled = torch.compile(chain, backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            torch.testing.assert_close(compiled(images()), want(images()))


@some_networks
def test_stage_functions_are_the_network_of_the_holder(name):
    taps = forward_features(name)
    functions = stage_functions(taps.network, taps.names)
    twin = copy.deepcopy(taps).double()  # with other weights, elsewhere
    for parameter in twin.parameters():
        parameter.data.mul_(0.9)
    for holder in (taps, twin):
        for training in (True, False):
            holder.train(training)
            x = images().to(next(holder.parameters()).dtype)
            before = copy.deepcopy(holder.network)
            torch.manual_seed(1)
            out = x
            for function in functions:
                out = function(holder, out)
            torch.manual_seed(1)
            assert torch.equal(before(x), out)


class Net(nn.Module):
    """Two convolutions and a layer; subclasses do something odd between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.act, self.fc = nn.Identity(), nn.Linear(4, 5)

    def between(self, x, inputs):
        return x

    def end(self, x):
        return self.fc(x.mean((2, 3)))

    def forward(self, x):
        return self.end(self.second(self.between(self.first(x), x)))


class Drops(Net):
    def end(self, x):
        x = F.dropout(x.mean((2, 3)), 0.5, self.training)
        return self.fc(F.dropout(x, 0.1, training=True))


def test_functional_dropout_follows_the_mode():
    network = Drops()
    first, last = split_at(network, ["first"])
    last = reinitialized_copy(last)
    x = first(images())
    for mode in (True, False, True):
        network.train(mode)
        last.train(mode)
        records = [(last.network.fc, []), (network.fc, [])]
        for module, zeros in records:
            module.register_forward_pre_hook(lambda m, a, zeros=zeros: zeros.append(a[0] == 0))
        for _ in range(50):
            last(x)
            network(images())
        for _, zeros in records:
            share = torch.stack(zeros).float().mean().item()
            assert share == pytest.approx(0.55 if mode else 0.1, abs=0.09)


class Counts(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0))

    def end(self, x):
        return super().end(x * (self.scale + 1) + torch.arange(4.0)[:, None, None])


def test_buffers_are_asked_at_each_pass():
    network = Counts().eval()
    internal = set(vars(network))
    parts = split_at(network, ["first"])
    assert torch.equal(run(parts, images()), network(images()))
    network.scale.fill_(5.0)
    assert torch.equal(run(parts, images()), network(images()))
    assert set(vars(network)) == internal
    assert "network.scale" in parts[1].state_dict()


class Defaults(Net):
    def forward(self, x, mask=None, *others, **further):
        return super().forward(x if mask is None else x * mask)


def test_other_arguments_keep_their_defaults():
    network = Defaults().eval()
    assert torch.equal(run(split_at(network, ["second"]), images()), network(images()))


class Named(Net):
    def end(self, x):
        return {"out": super().end(x), "both": [x, x.mean()]}


def test_output_may_have_any_form():
    network = Named()
    out, want = run(split_at(network, ["first"]), images()), network(images())
    torch.testing.assert_close(out, want)


def test_taps_may_lie_in_one_another():
    network = NETWORKS["resnet10_w16"]().eval()
    names = ["layer1.0.residual", "layer1"]
    with pytest.raises(ConfigError, match=r"leads around tap 'layer1.0.residual'"):
        split_at(network, names)
    names = ["stem.conv", "stem", "layer3.0", "layer3"]
    assert torch.equal(run(split_at(network, names), images()), network(images()))


class Shifted(Net):
    """A buffer that lies in the network itself, beside the modules with taps."""

    def __init__(self, constant=False) -> None:
        super().__init__()
        self.register_buffer("shift", torch.ones(()))
        self.constant = constant

    def between(self, x, inputs):
        return x + (torch.tensor(2.0) if self.constant else self.shift)

    def end(self, x):
        return self.fc(F.dropout(x.mean((2, 3)), 0.5, self.training))


def test_stage_functions_follow_buffers_and_mode():
    taps = Taps(Shifted(), ["first", "second"], example=images(2))
    first, second, end = stage_functions(taps.network, taps.names)
    taps.to("meta")
    assert end(taps, second(taps, first(taps, images().to("meta")))).shape == (3, 5)
    taps = copy.deepcopy(Taps(Shifted(), ["first", "second"], example=images(2))).double()
    taps.network.shift = torch.full((), 7.0, dtype=torch.float64)
    x = images().double()
    for training in (True, False):
        taps.train(training)
        torch.manual_seed(3)
        want = taps.network(x)
        torch.manual_seed(3)
        assert torch.equal(end(taps, second(taps, first(taps, x))), want)


def test_stage_functions_hold_no_constants():
    with pytest.raises(ConfigError, match=r"Shifted cannot be run in stages.*make that a buffer"):
        stage_functions(Shifted(constant=True), ["first"])
    with pytest.raises(ConfigError, match="cannot be cut into stages"):
        stage_functions(Around(), ["first"])


class Around(Net):
    def between(self, x, inputs):
        return x + inputs.mean()


class Chooses(Net):
    def between(self, x, inputs):
        return x if x.mean() > 0 else -x


class Trains(Net):
    def end(self, x):
        out = super().end(x)
        return (out, out) if self.training else out


class Skips(Net):
    def between(self, x, inputs):
        return self.act(x) if self.training else x


class Overwrites(Net):
    def between(self, x, inputs):
        x.add_(1.0)
        return x


class Wipes(Net):
    def __init__(self):
        super().__init__()
        self.act = nn.Hardswish(inplace=True)

    def between(self, x, inputs):
        return self.act(x)


class Forgets(Wipes):
    def between(self, x, inputs):
        self.act(x)
        return x


@pytest.mark.parametrize(
    ("network", "tap", "message"),
    [
        (Around, "first", "a connection leads around tap 'first'; tap the block that contains it"),
        (Chooses, "first", "it cannot be traced: .*control flow"),
        (Trains, "first", "it computes something else in training than in evaluation"),
        (Skips, "act", "it does not always call tap 'act'"),
        (Overwrites, "second", "it drops the result of add_, which works in place"),
        (Forgets, "second", "it drops the result of Hardswish, which works in place"),
        (Wipes, "first", "Hardswish works in place on the feature at a tap; tap the Hardswish"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_what_cannot_be_cut_is_refused(network, tap, message):
    with pytest.raises(
        ConfigError, match=rf"^{network.__name__} cannot be cut .*\({message}"
    ) as error:
        split_at(network(), [tap])
    assert "those that only read features can" in str(error.value)


def test_taps_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match="leads around tap 'layer2'"):
        split_at(NETWORKS["resnet10_w16"](), ["layer2", "layer1"])


def test_nasnet_has_connections_around_its_cells():
    network = build("cifar/nasnet", num_classes=5, in_channels=3)
    with pytest.raises(ConfigError, match=r"NASNet cannot be cut .* tap 'cells.3'"):
        split_at(network, network.cuts)


class Rectifies(Wipes):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU(inplace=True)


def test_a_rectifier_in_place_does_no_harm():
    taps = Taps(Rectifies().eval(), ["first"], example=images(2))
    first, last = split_at(taps.network, taps.names)
    out, features = taps.forward_features(images(), raw=True)
    assert torch.equal(last(features["first"]), out)
    assert torch.equal(last(first(images())), out)


@some_networks
def test_fresh_copies_keep_the_distribution_of_the_weights(name):
    network = NETWORKS[name]()
    torch.manual_seed(3)
    twin = reinitialized_copy(network)
    ours, partner = dict(network.named_parameters()), dict(twin.named_parameters())
    assert list(ours) == list(partner)
    for n, parameter in ours.items():
        assert partner[n].data_ptr() != parameter.data_ptr()
        if parameter.dim() < 2:
            assert torch.equal(partner[n], parameter)
        else:
            assert torch.equal(partner[n].flatten().sort()[0], parameter.flatten().sort()[0])
            assert len(parameter.unique()) < 9 or not torch.equal(partner[n], parameter)
    assert all(torch.equal(b, dict(twin.named_buffers())[n]) for n, b in network.named_buffers())


def test_fresh_copies_differ_and_are_seeded():
    layer = nn.Linear(8, 8)
    torch.manual_seed(0)
    first, second = reinitialized_copy(layer), reinitialized_copy(layer)
    torch.manual_seed(0)
    again = reinitialized_copy(layer)
    assert not torch.equal(first.weight, second.weight)
    assert torch.equal(first.weight, again.weight)


def test_fresh_copies_leave_alone_what_does_not_train():
    layer = nn.Linear(8, 8)
    layer.weight.requires_grad_(False)
    assert torch.equal(reinitialized_copy(layer).weight, layer.weight)


def test_fresh_copies_keep_ties():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    twin = reinitialized_copy(nn.Sequential(first, second))
    assert twin[0].weight is twin[1].weight


class Uncopyable:
    def __deepcopy__(self, memo):
        raise AssertionError("what watches the network was copied")

    def __call__(self, module, args, out):
        return None


def test_fresh_copies_carry_no_hooks():
    network = NETWORKS["resnet8"]()
    taps = Taps(network, example=images(2))
    network.layer2.register_forward_hook(Uncopyable())
    parts = split_at(network, taps.names)
    for part in (network, *parts):
        assert not any(m._forward_hooks for m in reinitialized_copy(part).modules())
    assert len(network.layer2._forward_hooks) == 2
    assert len(taps.forward_features(images())[1]) == 4


class Bypassed(nn.Module):
    """The input comes back behind the tap, so that the network cannot be parted in two there."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.second(self.first(x) + x)


def test_a_connection_around_the_tap_does_not_hinder_the_part_before_it():
    network, x = Bypassed(), torch.randn(2, 3, 4, 4)
    with pytest.raises(ConfigError, match="leads around"):
        split_at(network, ["first"])
    part = truncate_at(network, "first")
    assert torch.equal(part(x), network.first(x))
    assert not any("second" in name for name, _ in part.named_parameters())


GRAY, COLOR = ((0.5,), (0.2,)), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.2))


@pytest.mark.parametrize(("given", "own"), [(GRAY, COLOR), (COLOR, GRAY), (COLOR, (COLOR[0],) * 2)])
def test_a_network_that_gets_its_own_normalization_and_channels(given, own):
    network = build("cifar/resnet8", num_classes=5, in_channels=len(own[0])).eval()
    renormalize_inputs(network, given, own)
    x = torch.randn(2, len(given[0]), 8, 8)
    with torch.no_grad():
        assert torch.equal(run(split_at(network, ["layer2"]), x), network(x))


def test_a_network_that_gets_its_own_channels():
    network = build("cifar/resnet8", num_classes=5, in_channels=1).eval()
    convert_inputs(network, 1)
    x = images(2)
    with torch.no_grad():
        assert torch.equal(run(split_at(network, ["layer2"]), x), network(x))


class Counting(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_the_part_before_a_tap_of_what_cannot_be_traced():
    network = nn.Sequential(Counting(), nn.Sequential(nn.Conv2d(3, 3, 1)))
    assert isinstance(truncate_at(network, "1"), nn.Module)  # looks into nothing that has no tap
    network = nn.Sequential(Bypassed(), nn.Sequential(Counting(), nn.Conv2d(3, 3, 1)))
    truncate_at(network, "1.1")

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x) if x.sum() > 0 else x

    with pytest.raises(ConfigError, match=r"Odd cannot be cut behind 'conv'.*whole network"):
        truncate_at(Odd(), "conv")
