"""Taps on any network: what they find, what they refuse, and that they leave no trace."""

import copy
import gc
import weakref

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.mlp_mixer import MlpMixer
from torch import nn
from torchvision import models

from selfdistill.core import ConfigError
from selfdistill.taps import (
    Taps,
    as_map,
    evaluation_mode,
    find_taps,
)

EXAMPLE = torch.zeros(2, 3, 16, 16)


def images(n: int = 3, side: int = 16) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


class Shared(nn.Module):
    """One ReLU for two places, an unused layer, and a module that gives a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu, self.unused = nn.ReLU(), nn.Conv2d(4, 4, 3)
        self.pool = nn.MaxPool2d(2, return_indices=True)

    def forward(self, x):
        x = self.relu(self.second(self.relu(self.first(x))))
        return self.pool(x)[0].mean((2, 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("frist", r"Shared has no module 'frist' \(did you mean 'first'\?\); .selfdistill taps"),
        ("", "has no module ''"),
        ("unused", "'unused' of Shared stayed silent"),
        ("relu", "'relu' fired twice in one pass: its module is shared"),
        ("pool", "'pool' gives a tuple, no"),
    ],
)
def test_what_cannot_be_tapped_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        Taps(Shared(), [name], example=EXAMPLE)


def test_names_may_be_one_string():
    assert Taps(Shared(), "first, second", example=EXAMPLE).names == ("first", "second")


def test_features_are_those_of_the_modules(tiny_net, batch):
    taps = Taps(tiny_net.eval(), ["stage1", "stage3"], example=EXAMPLE)
    out, features = taps.forward_features(batch.inputs)
    first = tiny_net.stage1(batch.inputs)
    assert list(features) == ["stage1", "stage3"]
    assert torch.equal(features["stage1"], first)
    assert torch.equal(features["stage3"], tiny_net.stage3(tiny_net.stage2(first)))
    assert torch.equal(out, tiny_net(batch.inputs))
    assert taps.shapes == {"stage1": (8, 16, 16), "stage3": (12, 4, 4)}


def test_features_carry_gradients(tiny_net, batch):
    taps = Taps(tiny_net, ["stage1", "stage3"], example=EXAMPLE)
    taps.forward_features(batch.inputs)[1]["stage3"].sum().backward()
    assert tiny_net.stage1[0].weight.grad is not None
    assert tiny_net.stage4[0].weight.grad is None


def test_order_is_that_of_the_names(tiny_net, batch):
    taps = Taps(tiny_net, ["stage3", "stage1"], example=EXAMPLE)
    assert list(taps.forward_features(batch.inputs)[1]) == list(taps.shapes) == ["stage3", "stage1"]


@pytest.mark.parametrize(
    ("shape", "want"),
    [((2, 5), (2, 5, 1, 1)), ((2, 7, 5), (2, 5, 7, 1)), ((2, 5, 4, 3), (2, 5, 4, 3))],
)
def test_shapes_become_maps(shape, want):
    assert as_map(torch.zeros(shape)).shape == want


def test_of_an_image_that_is_not_square_the_proportions_tell():
    wide = (64, 96)
    assert as_map(torch.zeros(2, 16, 16, 24), wide).shape == (2, 16, 16, 24)  # 16 channels
    assert as_map(torch.zeros(2, 16, 24, 7), wide).shape == (2, 7, 16, 24)  # channels last
    assert as_map(torch.zeros(2, 23, 15, 20), (180, 240)).shape == (2, 23, 15, 20)
    assert as_map(torch.zeros(2, 6, 8, 96), (180, 240)).shape == (2, 96, 6, 8)


def test_tokens_keep_their_order():
    tokens = torch.randn(2, 7, 5)
    assert torch.equal(as_map(tokens)[1, :, 3, 0], tokens[1, 3])


def test_channels_last_is_permuted():
    x = torch.randn(2, 4, 4, 6)
    assert torch.equal(as_map(x), torch.from_numpy(x.numpy().transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3, 4, 5, 6)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ConfigError, match="neither a map nor a token sequence"):
        as_map(torch.zeros(shape))


def stages(*strides: int) -> nn.Sequential:
    widths = [3, 4, 5, 6, 7, 8]
    convs = [nn.Conv2d(widths[i], widths[i + 1], 3, s, 1) for i, s in enumerate(strides)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[len(strides)], 2)]
    return nn.Sequential(*convs, *head)


NETWORKS = {  # name: (maker, side, resolutions of the taps)
    "sequential": (lambda: stages(1, 2, 2, 2), 16, [16, 8, 4, 2]),
    "three stages": (lambda: stages(1, 2, 2), 16, [16, 8, 4]),
    "two stages": (lambda: stages(1, 2), 16, [16, 8]),
    "five stages": (lambda: stages(1, 2, 2, 2, 2), 16, [8, 4, 2, 1]),
    "tv resnet18": (lambda: models.resnet18(num_classes=2), 32, [8, 4, 2, 1]),
    "tv mobilenet_v3_small": (lambda: models.mobilenet_v3_small(num_classes=2), 64, [16, 8, 4, 2]),
    "convnext_atto": (lambda: timm.create_model("convnext_atto"), 64, [16, 8, 4, 2]),
    "regnetx_002": (lambda: timm.create_model("regnetx_002"), 64, [16, 8, 4, 2]),
    "efficientnet_b0": (lambda: timm.create_model("efficientnet_b0"), 64, [16, 8, 4, 2]),
    "mobilenetv3_small_100": (
        lambda: timm.create_model("mobilenetv3_small_100"),
        64,
        [16, 8, 4, 2],
    ),
    "densenet121": (lambda: timm.create_model("densenet121"), 32, [8, 4, 2, 1]),
}
STAGE_ENDS = {  # what the literature calls the stages of these
    "tv resnet18": ["layer1", "layer2", "layer3", "layer4"],
    "convnext_atto": ["stages.0", "stages.1", "stages.2"],
    "regnetx_002": ["s1", "s2", "s3"],
    "densenet121": ["features.denseblock1", "features.denseblock2", "features.denseblock3"],
    "efficientnet_b0": ["blocks.1", "blocks.2", "blocks.4"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_auto_finds_the_ends_of_stages(name):
    make, side, resolutions = NETWORKS[name]
    torch.manual_seed(0)
    taps = Taps(make(), example=torch.zeros(2, 3, side, side))
    assert [shape[1:] for shape in taps.shapes.values()] == [(r, r) for r in resolutions]
    known = STAGE_ENDS.get(name, [])
    assert list(taps.names[: len(known)]) == known
    _, features = taps.forward_features(images(side=side))
    assert [f.shape[1:] for f in features.values()] == list(taps.shapes.values())


def tv_vit(layers: int = 6) -> nn.Module:
    size = {"hidden_dim": 8, "mlp_dim": 16, "num_heads": 2, "num_classes": 2}
    return models.VisionTransformer(16, 4, layers, **size)


def timm_vit(depth: int = 6) -> nn.Module:
    size = {"embed_dim": 12, "num_heads": 2, "num_classes": 2}
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, depth=depth, **size)


@pytest.mark.parametrize(
    ("make", "side", "shape", "blocks"),
    [
        (tv_vit, 16, (8, 4, 4), [1, 2, 3]),
        (timm_vit, 32, (12, 8, 8), [1, 2, 3]),
        (lambda: timm_vit(12), 32, (12, 8, 8), [2, 5, 8]),
        (lambda: timm_vit(3), 32, (12, 8, 8), [0, 1]),
        (
            lambda: MlpMixer(num_classes=2, img_size=16, patch_size=4, num_blocks=4, embed_dim=8),
            16,
            (8, 4, 4),
            [0, 1, 2],
        ),
    ],
)
def test_auto_takes_evenly_spaced_blocks_of_tokens(make, side, shape, blocks):
    taps = Taps(make(), example=torch.zeros(2, 3, side, side))
    *shallow, last = taps.names
    assert [int(name.rpartition(".")[2].rpartition("_")[2]) for name in shallow] == blocks
    assert last in ("norm", "encoder")  # behind the last block, as the classifier reads it
    assert set(taps.shapes.values()) == {shape}


def swin() -> nn.Module:
    size = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    return models.SwinTransformer([2, 2], window_size=[2, 2], num_classes=2, **size)


def test_swin_is_permuted():
    torch.manual_seed(0)
    network = swin().eval()
    taps = Taps(network, example=torch.zeros(2, 3, 32, 32))
    caught = {}
    for name in ("features.1", "features.3", "features.5"):
        hook = lambda m, args, out, name=name: caught.update({name: out})  # noqa: E731
        network.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        _, features = taps.forward_features(images(side=32))
    assert taps.shapes["features.3"] == (16, 8, 8)
    assert [f.shape[1:] for f in features.values()] == [
        (8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 2, 2)
    ]  # fmt: skip
    for name, raw in caught.items():  # (B, H, W, C)
        assert torch.equal(features[name], raw.movedim(3, 1)), name


def test_own_cuts_win(tiny_net):
    tiny_net.cuts = ("stage2", "stage4")
    assert find_taps(tiny_net, EXAMPLE) == ["stage2", "stage4"]


def test_a_librarys_attribute_of_the_same_name_does_not_win():
    network = timm.create_model("tf_efficientnet_lite0", num_classes=5)
    assert network.stage_ends == [1, 2, 3, 5, 7]  # numbers of its own stages
    assert find_taps(network, EXAMPLE, stages=True) == find_taps(network, EXAMPLE)


def test_a_network_without_stages_is_told_so():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.Flatten(), nn.Linear(1024, 2))
    with pytest.raises(ConfigError, match="no stages were found in Sequential: give the taps"):
        find_taps(network, EXAMPLE)


def test_evaluation_mode_leaves_modes_and_statistics(tiny_net):
    tiny_net.train()
    tiny_net.stage2.eval()
    modes = {name: m.training for name, m in tiny_net.named_modules()}
    before = copy.deepcopy(tiny_net.state_dict())
    Taps(tiny_net, example=torch.randn(2, 3, 16, 16))
    assert {name: m.training for name, m in tiny_net.named_modules()} == modes
    assert all(torch.equal(v, before[k]) for k, v in tiny_net.state_dict().items())


def test_evaluation_mode_restores_after_a_fault(tiny_net):
    tiny_net.train()
    with evaluation_mode(tiny_net):
        assert not any(m.training for m in tiny_net.modules())
        assert not torch.is_grad_enabled()
    with pytest.raises(RuntimeError, match="channels"), evaluation_mode(tiny_net):
        tiny_net(torch.zeros(1, 5, 16, 16))
    assert all(m.training for m in tiny_net.modules())
    assert torch.is_grad_enabled()


def test_finding_leaves_no_hook(tiny_net):
    find_taps(tiny_net, EXAMPLE)
    assert not any(m._forward_hooks for m in tiny_net.modules())


def test_a_plain_pass_is_as_if_there_were_no_taps(tiny_net, batch):
    plain = copy.deepcopy(tiny_net)
    taps = Taps(tiny_net, example=EXAMPLE)
    assert torch.equal(taps(batch.inputs), plain(batch.inputs))
    assert torch.equal(tiny_net(batch.inputs), plain(batch.inputs))
    assert list(tiny_net.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("early", [False, True])
def test_no_feature_is_kept(tiny_net, batch, early):
    taps = Taps(tiny_net, example=EXAMPLE)
    if early:
        feature = taps.forward_until("stage2", batch.inputs)
    else:
        feature = taps.forward_features(batch.inputs)[1]["stage2"]
    alive = weakref.ref(feature)
    del feature
    gc.collect()
    assert alive() is None


def test_a_fault_on_the_way_leaves_taps_usable(tiny_net, batch):
    taps = Taps(tiny_net.eval(), example=EXAMPLE)
    for run in (taps.forward_features, lambda x: taps.forward_until("stage4", x)):
        with pytest.raises(RuntimeError):
            run(torch.zeros(1, 5, 16, 16))
    out, features = taps.forward_features(batch.inputs)
    assert len(features) == 4
    assert torch.equal(taps(batch.inputs), out)


def test_until_is_the_tapped_feature(tiny_net, batch):
    taps = Taps(tiny_net.eval(), example=EXAMPLE)
    _, features = taps.forward_features(batch.inputs)
    for name, feature in features.items():
        assert torch.equal(taps.forward_until(name, batch.inputs), feature)


def test_until_runs_nothing_behind_the_tap(tiny_net, batch):
    taps = Taps(tiny_net, example=EXAMPLE)
    tiny_net.stage3.register_forward_pre_hook(lambda *_: pytest.fail("stage3 ran"))
    taps.forward_until("stage2", batch.inputs)


def test_until_an_unknown_tap(tiny_net, batch):
    taps = Taps(tiny_net, ["stage1"], example=EXAMPLE)
    with pytest.raises(ConfigError, match="'stage2'"):
        taps.forward_until("stage2", batch.inputs)


def test_a_copy_taps_its_own_network(tiny_net, batch):
    taps = Taps(tiny_net.eval(), example=EXAMPLE)
    twin = copy.deepcopy(taps)
    with torch.no_grad():
        twin.network.stage1[0].weight.zero_()
    _, ours = taps.forward_features(batch.inputs)
    _, reference = twin.forward_features(batch.inputs)
    assert torch.equal(ours["stage1"], tiny_net.stage1(batch.inputs))
    assert torch.equal(reference["stage1"], twin.network.stage1(batch.inputs))
    assert not torch.equal(ours["stage1"], reference["stage1"])


def test_two_readers_of_one_network(tiny_net, batch):
    first = Taps(tiny_net, ["stage1"], example=EXAMPLE)
    second = Taps(tiny_net, ["stage1", "stage2"], example=EXAMPLE)
    assert list(first.forward_features(batch.inputs)[1]) == ["stage1"]
    assert list(second.forward_features(batch.inputs)[1]) == ["stage1", "stage2"]


def test_compiled_taps_give_the_same(tiny_net, batch):
    taps = Taps(tiny_net.eval(), example=EXAMPLE)
    out, features = taps.forward_features(batch.inputs)
    compiled = torch.compile(taps.forward_features, backend="eager")
    for _ in range(2):
        got, caught = compiled(batch.inputs)
        torch.testing.assert_close(got, out)
        assert list(caught) == list(features)
        for name, feature in features.items():
            torch.testing.assert_close(caught[name], feature)


class InPlace(nn.Module):
    """Changes what its stages give in place, and a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.three, self.fc = nn.Conv2d(4, 4, 3, 2, 1), nn.Linear(4, 5)

    def forward(self, x):
        x = F.relu(self.one(x), inplace=True)
        x = self.two(x)
        x.view(len(x), -1).clamp_(min=0)
        x = F.relu(self.three(x), inplace=True)
        return self.fc(x.mean((2, 3)))


def test_features_are_what_the_module_gives_and_not_what_becomes_of_them():
    torch.manual_seed(0)
    network, x = InPlace(), torch.randn(4, 3, 8, 8)
    taps = Taps(network, ["one", "two", "three"], example=x[:2])
    out, features = taps.forward_features(x)
    assert torch.equal(out, network(x))
    for name in ("one", "two"):
        assert (features[name] < 0).any()
        assert torch.equal(features[name], taps.forward_until(name, x))
    assert (features["three"] >= 0).all()  # the last one as the classifier reads it
    features["one"].sum().backward()
    assert torch.equal(network.one.bias.grad, torch.full((4,), 4.0 * 64))
