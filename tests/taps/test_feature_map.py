"""Tokens as maps: their places in the image, the tokens that have none, and what is pooled."""

import pytest
import timm
import torch
from timm.models.mlp_mixer import MlpMixer
from torch import nn
from torchvision import models

from selfdistill.taps import Taps, as_map, count_prefix_tokens
from selfdistill.taps.feature_map import token_grid


@pytest.mark.parametrize(
    ("count", "image", "want"),
    [
        (16, (32, 32), (4, 4)),
        (17, (32, 32), None),
        (165, (180, 240), (11, 15)),
        (168, (224, 200), (14, 12)),
        (2, (64, 32), (2, 1)),
        (8, (32, 64), (2, 4)),
        (8, (64, 32), (4, 2)),
        (1, (32, 32), (1, 1)),
        (0, (32, 32), None),
    ],
)
def test_grid_in_the_images_proportions(count, image, want):
    assert token_grid(count, image) == want


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("grid", [(4, 4), (2, 4), (3, 6)])
def test_every_token_lies_at_its_patch(prefix, grid):
    rows, columns = grid
    tokens = torch.randn(2, prefix + rows * columns, 5)
    feature = as_map(tokens, (8 * rows, 8 * columns), prefix)
    assert feature.shape == (2, 5, rows, columns)
    for row in range(rows):
        for column in range(columns):
            token = tokens[:, prefix + row * columns + column]
            assert torch.equal(feature[:, :, row, column], token)


def test_before_the_class_token_joins_there_is_none_to_drop():
    assert as_map(torch.zeros(2, 16, 3), (32, 32), 1).shape == (2, 3, 4, 4)


def test_tokens_that_make_no_grid_are_a_column_without_the_prefix():
    tokens = torch.randn(2, 8, 3)
    feature = as_map(tokens, (32, 32), 1)
    assert torch.equal(feature, tokens[:, 1:].transpose(1, 2).unsqueeze(-1))


def timm_vit(name: str = "vit_tiny_patch16_224", **options) -> nn.Module:
    size = {"embed_dim": 12, "num_heads": 2, "num_classes": 3, "depth": 4}
    return timm.create_model(name, img_size=32, patch_size=8, **size, **options)


def tv_vit() -> nn.Module:
    return models.VisionTransformer(32, 8, 4, 2, 8, 16, num_classes=3)


class OwnTransformer(nn.Module):
    """Written by hand, with class and register tokens under the usual names."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.register_tokens = nn.Parameter(torch.randn(1, 3, 8))
        self.blocks = nn.Sequential(*[nn.Sequential(nn.LayerNorm(8), nn.GELU()) for _ in range(4)])
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        prefix = [t.expand(len(x), -1, -1) for t in (self.cls_token, self.register_tokens)]
        return self.head(self.blocks(torch.cat([*prefix, patches], 1))[:, 0])


NETWORKS = {  # tokens without a place, and the module whose input the classifier reads
    "class token": (timm_vit, 1, "head"),
    "two tokens": (lambda: timm_vit("deit_tiny_distilled_patch16_224"), 2, "head"),
    "registers": (lambda: timm_vit(reg_tokens=4), 5, "head"),
    "mean": (lambda: timm_vit(global_pool="avg", fc_norm=False), 1, "head"),
    "no class token": (
        lambda: timm_vit(class_token=False, global_pool="avg", fc_norm=False),
        0,
        "head",
    ),
    "torchvision": (tv_vit, 1, "heads"),
    "own": (OwnTransformer, 4, "head"),
    "mixer": (
        lambda: MlpMixer(num_classes=3, img_size=32, patch_size=8, num_blocks=4, embed_dim=8),
        0,
        "head",
    ),
    "swin": (
        lambda: models.SwinTransformer([2, 2], 8, [1] * 3, [1] * 3, [2, 2], num_classes=3),
        0,
        "head",
    ),
    "convolutions": (lambda: models.resnet18(num_classes=3), 0, "fc"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_pooled_is_what_the_classifier_reads(name):
    make, prefix, head = NETWORKS[name]
    torch.manual_seed(0)
    network = make().eval()
    assert count_prefix_tokens(network) == prefix
    taps = Taps(network, example=torch.zeros(2, 3, 32, 32))
    read = {}
    network.get_submodule(head).register_forward_pre_hook(lambda m, args: read.update(x=args[0]))
    with torch.no_grad():
        output, features, pooled = taps.forward_pooled(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(pooled, read["x"])
    assert output.shape == (2, 3)
    for shape in taps.shapes.values():
        assert shape[1] == shape[2]  # maps of the image's proportions
    assert [tuple(f.shape[1:]) for f in features.values()] == list(taps.shapes.values())


def test_a_stage_that_the_classifier_does_not_read_is_averaged():
    taps = Taps(timm_vit(), ["patch_embed"], example=torch.zeros(2, 3, 32, 32))
    _, features, pooled = taps.forward_pooled(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(pooled, features["patch_embed"].mean((2, 3)))


def test_a_selection_shares_passes():
    network = models.resnet18(num_classes=3)
    taps = Taps(network, ["layer1", "layer2", "layer4"], example=torch.zeros(2, 3, 32, 32))
    first, second = taps.select(["layer1"]), taps.select(["layer2", "layer4"])
    passes = []
    network.register_forward_hook(lambda *_: passes.append(1))
    x = torch.randn(2, 3, 32, 32)
    with taps.shared_forward():
        maps = [part.forward_features(x)[1] for part in (first, second, taps)]
    assert len(passes) == 1
    assert [list(each) for each in maps] == [["layer1"], ["layer2", "layer4"], list(taps.names)]
    assert second.shapes.keys() == {"layer2", "layer4"}
    first.forward_features(x)
    second.forward_features(x)
    assert len(passes) == 3
