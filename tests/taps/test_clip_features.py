"""Features of clips keep their times, and what does not fit is told in a sentence."""

import pytest
import torch
from torch import nn
from torchvision.models.video.mvit import MSBlockConfig, MViT

from selfdistill.core import ConfigError
from selfdistill.models import build
from selfdistill.taps import Taps, as_map, example_output, find_taps

EXAMPLE = torch.zeros(2, 3, 8, 32, 32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return build("clips/r3d10_w8", num_classes=5)


def test_shapes_have_times():
    taps = Taps(network(), example=EXAMPLE)
    assert taps.shapes == {
        "layer1": (8, 8, 16, 16),
        "layer2": (16, 4, 8, 8),
        "layer3": (32, 2, 4, 4),
        "layer4": (64, 1, 2, 2),
    }


def test_the_pooled_feature_is_what_the_classifier_reads():
    net = network().eval()
    clips = torch.randn(3, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    outputs, features, pooled = Taps(net, example=EXAMPLE).forward_pooled(clips)
    assert features["layer2"].shape == (3, 16, 4, 8, 8)
    torch.testing.assert_close(net.fc(pooled), outputs)


def test_stages_are_found_where_the_resolution_falls():
    net = network()
    trunk = nn.Sequential(net.stem, net.layer1, net.layer2, net.layer3, net.layer4)
    assert find_taps(trunk, EXAMPLE) == ["1", "2", "3", "4"]


def test_channels_last_clips_are_permuted():
    x = torch.randn(2, 4, 7, 7, 96)
    assert torch.equal(as_map(x, (224, 224)), x.permute(0, 4, 1, 2, 3))
    y = torch.randn(2, 96, 4, 7, 7)
    assert as_map(y, (224, 224)) is y


def test_a_network_of_images_is_not_for_clips():
    with pytest.raises(ConfigError, match=r"is a network for images, and these are clips"):
        example_output(build("cifar/resnet8", num_classes=2), EXAMPLE)


def test_a_network_of_clips_is_not_for_images():
    with pytest.raises(ConfigError, match=r"network for clips, and these are images; .*task clips"):
        example_output(network(), torch.zeros(2, 3, 32, 32))


def test_other_channels_are_told():
    with pytest.raises(ConfigError, match="takes 3 channels and the clips have 1"):
        example_output(network(), torch.zeros(2, 1, 8, 32, 32))


class Averaged(nn.Module):
    """Loses the times halfway."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).mean(2)).mean((2, 3))


def test_taps_with_and_without_times_are_refused():
    with pytest.raises(ConfigError, match="some of the taps have times and others have not"):
        Taps(Averaged(), ["first", "second"], example=EXAMPLE)


def test_a_feature_of_more_sides_than_the_image_is_refused():
    net = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Flatten(), nn.Linear(48, 2))
    with pytest.raises(ConfigError, match="for an input of fewer sides"):
        Taps(net, ["0"], example=torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("grid", [(4, 2, 2), (2, 4, 4), (4, 3, 6), (1, 3, 3)])
def test_every_token_of_a_clip_lies_at_its_time_and_place(prefix, grid):
    times, rows, columns = grid
    tokens = torch.randn(2, prefix + times * rows * columns, 5)
    feature = as_map(tokens, (4, 8 * rows, 8 * columns), prefix)
    assert feature.shape == (2, 5, *grid)
    for time in range(times):
        for row in range(rows):
            for column in range(columns):
                number = prefix + (time * rows + row) * columns + column
                assert torch.equal(feature[:, :, time, row, column], tokens[:, number])


def vision_transformer_of_clips() -> nn.Module:
    """MViT-V1 made small: four blocks, tokens of 4 × 4 pixels in two frames each."""
    blocks = [
        MSBlockConfig(
            num_heads=heads,
            input_channels=channels,
            output_channels=width,
            kernel_q=[3, 3, 3] if stride else [],
            kernel_kv=[3, 3, 3],
            stride_q=stride,
            stride_kv=[1, pooled, pooled],
        )
        for heads, channels, width, stride, pooled in (
            (1, 8, 8, [], 4),
            (2, 8, 16, [1, 2, 2], 2),
            (2, 16, 16, [], 2),
            (4, 16, 32, [1, 2, 2], 1),
        )
    ]
    torch.manual_seed(0)
    return MViT(
        spatial_size=(32, 32),
        temporal_size=8,
        block_setting=blocks,
        residual_pool=False,
        residual_with_cls_embed=False,
        rel_pos_embed=False,
        proj_after_attn=False,
        num_classes=5,
    )


def test_a_transformer_of_clips_has_maps_and_a_class_token():
    net = vision_transformer_of_clips().eval()
    clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    taps = Taps(net, example=EXAMPLE)
    assert taps.shapes == {
        "blocks.1.norm1": (8, 4, 8, 8),
        "blocks.3.norm1": (16, 4, 4, 4),
        "norm": (32, 4, 2, 2),
    }
    outputs, features, pooled = taps.forward_pooled(clips)
    torch.testing.assert_close(net.head(pooled), outputs)
    tokens = taps.forward_features(clips, raw=True)[1]["norm"]
    assert torch.equal(features["norm"][:, :, 3, 1, 0], tokens[:, 1 + 3 * 4 + 2])


def test_a_transformer_of_clips_names_the_clips_that_it_is_built_for():
    with pytest.raises(ConfigError, match="it is built for --clip-frames 8 --image-size 32"):
        example_output(vision_transformer_of_clips(), torch.zeros(2, 3, 4, 64, 64))


@pytest.mark.parametrize("names", ["auto", ["stem"]])
def test_taps_that_are_named_find_no_other_words(names):
    with pytest.raises(ConfigError, match="network for clips, and these are images"):
        Taps(build("clips/r3d10_w8", num_classes=5), names, example=torch.zeros(2, 3, 16, 16))
    with pytest.raises(ConfigError, match="network for images, and these are clips"):
        Taps(build("cifar/resnet8", num_classes=5), names, example=torch.zeros(2, 3, 4, 16, 16))
