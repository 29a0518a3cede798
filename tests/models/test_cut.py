"""Networks cut behind a module: the same features, the names of the whole, and its weights."""

import copy

import pytest
import torch
from torch import nn

import selfdistill
from selfdistill.core import ArtifactError, ConfigError
from selfdistill.export.usage_snippet import build_code
from selfdistill.models import build, published_input, set_weights
from selfdistill.modules.bottlenecks import SlimBottleneck
from selfdistill.taps import Taps, find_taps
from selfdistill.taps.fx_split import split_at

CUTS = {
    "cifar/resnet10_w16@layer3": 16,
    "cifar/densenet121@features.block2": 16,
    "cifar/mobilenet_v2@features.layer5": 16,
    "timm/tf_efficientnet_lite0@blocks.4": 64,
    "timm/regnetx_002@s3": 64,
    "timm/vit_tiny_patch16_224@blocks.5": 224,
    "torchvision/mobilenet_v2@features.13": 64,
}
SLOW = ("cifar/densenet121@features.block2", "timm/vit_tiny_patch16_224@blocks.5")


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CUTS]
)
def test_classifies_the_feature_of_the_whole_network(name):
    whole_name, _, tap = name.partition("@")
    whole, x = build(whole_name, num_classes=7), images(CUTS[name])
    network = build(name, num_classes=4)
    with pytest.warns(UserWarning, match="tensors behind the cut left out; .*cut_head.weight"):
        set_weights(network, whole.state_dict(), "weights")
    for training in (False, True):
        both = [copy.deepcopy(part).train(training) for part in (whole, network)]
        with torch.no_grad():
            feature = Taps(both[0].eval(), [tap], example=x).train(training)
            pooled = feature.forward_features(x)[1][tap].mean((2, 3))
            torch.testing.assert_close(both[1](x), both[1].cut_head(pooled))
    names = network.state_dict().keys() - {"cut_head.weight", "cut_head.bias"}
    assert names | network.dropped == whole.state_dict().keys()
    assert find_taps(network, x)[-1] == tap


def test_cuts_a_network_of_clips():
    network = build("clips/r3d10_w8@layer2", num_classes=4)
    clips = torch.randn(2, 3, 4, 16, 16)
    feature = network.trunk_forward(network.eval(), clips)
    torch.testing.assert_close(network(clips), network.cut_head(feature.mean((2, 3, 4))))


@pytest.mark.parametrize(
    ("name", "side", "last"),
    [
        ("cifar/resnet10_w16@layer3", 32, (128, 4, 4)),
        ("cifar/resnet10_w16@layer3", 64, (128, 8, 8)),
        ("timm/tf_efficientnet_lite0@blocks.4", 96, (1280, 3, 3)),
    ],
)
def test_the_bottleneck_is_that_of_an_exit_at_this_tap(name, side, last):
    whole_name, _, tap = name.partition("@")
    whole, x = build(whole_name, num_classes=7), images(side)
    network = build(f"{name}+bottleneck", num_classes=4)
    with pytest.warns(UserWarning, match="tensors of the bottleneck behind the cut start anew"):
        set_weights(network, whole.state_dict(), "weights")
    taps = Taps(whole.eval(), [tap], example=x)
    bottleneck = SlimBottleneck(taps.shapes[tap], last).eval()
    bottleneck.layers.load_state_dict(network.cut_bottleneck.layers.state_dict())
    with torch.no_grad():
        feature = bottleneck(taps.forward_features(x)[1][tap])
        want = network.cut_head(feature.mean((2, 3)))
        torch.testing.assert_close(network.eval()(x), want)
    set_weights(network, network.state_dict(), "weights")  # its own fit whole


def test_a_bottleneck_over_times():
    network = build("clips/r3d10_w8@layer2+bottleneck", num_classes=4)
    assert network(torch.randn(2, 3, 4, 16, 16)).shape == (2, 4)


def test_takes_the_image_channels_that_are_asked_for():
    network = build("cifar/resnet8@layer2", num_classes=4, in_channels=5)
    assert network(torch.zeros(2, 5, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar/resnet8@layer9", "ResNet has no module 'layer9'"),
        ("cifar/resnet8@+bottleneck", r"names no module; `selfdistill taps cifar/resnet8`"),
        ("cifar/resnet8@", "'cifar/resnet8@' names no module; `selfdistill taps cifar/resnet8`"),
        ("cifar/resnet8@fc", "no weights lie behind 'fc'; give the network without @fc"),
        ("cifar/resnet7@layer2", "there is no network 'cifar/resnet7'"),
        ("timm/resnet18@layer9", "ResNet has no module 'layer9'"),
    ],
)
def test_refused(name, words):
    with pytest.raises(ConfigError, match=words):
        build(name, num_classes=4)


def test_a_path_around_the_cut_is_no_hindrance():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            early = self.first(x)
            return self.fc((self.second(early) + early).mean((2, 3)))

    selfdistill.models.register_model("mine/around", lambda num_classes, in_channels: Around())
    network = build("mine/around@second", num_classes=3)
    assert network(images(16)).shape == (2, 3)
    assert network.dropped == {"fc.weight", "fc.bias"}


def test_weights_of_another_network_do_not_fit():
    network = build("cifar/resnet10_w16@layer3", num_classes=4)
    with pytest.raises(ArtifactError, match="do not fit CutNetwork"):
        set_weights(network, build("cifar/vgg8", num_classes=4).state_dict(), "weights")


def test_published_weights_have_the_input_of_the_whole():
    name = "timm/tf_efficientnet_lite0"
    assert published_input(f"{name}@blocks.4") == published_input(name) is not None


def test_pretrained_weights_are_those_of_the_whole(monkeypatch):
    import timm

    def fetched(name, pretrained, **keys):
        assert pretrained
        network = timm.models.resnet18(**keys)
        torch.nn.init.constant_(network.conv1.weight, 0.5)
        return network

    monkeypatch.setattr(timm, "create_model", fetched)
    network = build("timm/resnet18@layer3", num_classes=4, weights="pretrained")
    assert torch.equal(network.conv1.weight, torch.full_like(network.conv1.weight, 0.5))
    assert network.cut_head.out_features == 4


def test_the_code_of_a_card_builds_it():
    code = build_code("timm/resnet18@layer3", "classification", 4, 3)
    assert "build('timm/resnet18@layer3', num_classes=4, in_channels=3)" in code


@pytest.mark.filterwarnings("ignore:.*left out", "ignore:.*chance", "ignore:.*teacher")
@pytest.mark.parametrize("behind", ["", "+bottleneck"])
def test_trains_from_a_run_teaches_and_is_exported(tmp_path, behind):
    tiny = {"max_train_images": 64, "batch_size": 32, "epochs": 1, "quiet": True}
    selfdistill.train(method="ce", model="cifar/resnet8", out=tmp_path / "whole", **tiny)
    keys = {"model": f"cifar/resnet8@layer2{behind}", "weights": str(tmp_path / "whole")}
    run = selfdistill.train(method="muse", out=tmp_path / "cut", **keys, **tiny)
    assert run.exits[-1].predictor == "student"
    again = selfdistill.load(run.path)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(again.network(x), run.network(x))
    for form in ("safetensors", "onnx"):
        assert run.export(exit="student", format=form).verification.holds
    student = selfdistill.train(
        method="kd", model="cifar/resnet8", teacher=str(run.path), out=tmp_path / "kd", **tiny
    )
    assert torch.equal(student.method.teacher.network(x), run.network(x))


@pytest.mark.parametrize("behind", ["", "+bottleneck"])
def test_is_split_at_its_taps_and_exported_exit_by_exit(tmp_path, behind):
    network, x = build(f"cifar/resnet8@layer2{behind}", num_classes=4).eval(), images(32)
    parts, y = split_at(network, find_taps(network, x)[:-1]), x
    for part in parts:
        y = part(y)
    torch.testing.assert_close(y, network(x))
    keys = {"max_train_images": 64, "batch_size": 32, "epochs": 1, "quiet": True}
    run = selfdistill.train(
        method="byot", model=f"cifar/resnet8@layer2{behind}", out=tmp_path / "run", **keys
    )
    assert run.export(exit="exit1", format="safetensors").verification.holds
    assert run.anytime(threshold=0.5)(torch.randn(2, 1, 8, 8)).logits.shape == (2, 10)


@pytest.mark.parametrize("method", ["one", "mixskd"])
def test_methods_that_copy_stages_take_it(method):
    network = build("cifar/resnet8@layer2", num_classes=4)
    keys = {"example": images(16), "classes": 4, "total_steps": 1}
    criterion = selfdistill.wrap(network, method, **keys)
    criterion(torch.randn(4, 3, 16, 16), torch.arange(4)).backward()
