"""Networks by name: what is built, what is refused, and with which sentence."""

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from selfdistill.core import ConfigError, ResourceError
from selfdistill.models import build, list_models
from selfdistill.models.build import is_absent_from_source, names_in_source

ORIGINAL = torchvision.models.get_model


def test_a_network_is_handed_back():
    network = nn.Linear(2, 2)
    assert build(network, num_classes=2) is network


def test_a_network_of_the_user_takes_weights(tmp_path):
    save_file({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, tmp_path / "w.safetensors")
    network = build(nn.Linear(2, 1), num_classes=1, weights=str(tmp_path / "w.safetensors"))
    assert network(torch.tensor([[1.0, 2.0]])).item() == 3


@pytest.mark.parametrize("model", ["cifar/resnet8", "timm/resnet10t", "torchvision/mobilenet_v2"])
def test_builds_each_family(model):
    with torch.device("meta"):
        network = build(model, num_classes=4)
    assert network.train()(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 4)


def test_timm_takes_other_channels():
    with torch.device("meta"):
        network = build("timm/resnet10t", num_classes=4, in_channels=1)
    assert network(torch.empty(2, 1, 64, 64, device="meta")).shape == (2, 4)


def test_outputs_of_googlenet_are_a_tensor_in_training():
    with torch.device("meta"):
        network = build("torchvision/googlenet", num_classes=4)
    assert network.train()(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 4)


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("resnet18", "cifar/resnet18"),
        ("resnt50", "cifar/resnet50"),
        ("convnext_tny", "timm/convnext_tiny"),
        ("cifar/resnet19", "cifar/resnet18"),
        ("timm/efficientnet_b00", "timm/efficientnet_b0"),
        ("torchvision/resnet19", "torchvision/resnet18"),
        ("timmm/resnet50", "timm/resnet50"),
    ],
)
def test_unknown_name_gets_a_hint(model, meant):
    with pytest.raises(ConfigError, match=f"'{model}' .did you mean '{meant}'"):
        build(model, num_classes=2)


def test_unknown_set_of_timms_weights_gets_a_hint():
    with pytest.raises(ConfigError, match=r"no weights 'resnet50.a1_in1' .did.*resnet50.a1_in1k"):
        build("timm/resnet50.a1_in1", num_classes=2)


@pytest.mark.parametrize("model", ["", "/", "cifar/", "zzzzzzzz"])
def test_nonsense_is_an_error_of_the_user(model):
    with pytest.raises(ConfigError, match="there is no network"):
        build(model, num_classes=2)


def test_torchvision_takes_three_channels():
    with pytest.raises(ConfigError, match="take 3 channels, not 1; timm/ and cifar/ take any"):
        build("torchvision/resnet18", num_classes=2, in_channels=1)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("cifar/resnet8", "no pretrained weights exist for cifar/"),
        ("timm/resnet34d_never", "there is no network"),
        (nn.Identity(), "go with a network's name"),
    ],
)
def test_pretrained_where_there_is_none(model, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build(model, num_classes=2, weights="pretrained")


def test_pretrained_that_timm_lacks():
    lacking = next(n for n in timm.list_models() if not timm.models.is_model_pretrained(n))
    with pytest.raises(ConfigError, match="timm has no pretrained weights"):
        build(f"timm/{lacking}", num_classes=2, weights="pretrained")


class OddHubError(Exception):
    """Like the errors of HTTP libraries that are no OSError."""


@pytest.mark.parametrize("fault", [OSError("no route"), OddHubError("503"), RuntimeError("hash")])
@pytest.mark.parametrize(
    ("model", "patched"),
    [
        ("timm/resnet18", "timm.create_model"),
        ("torchvision/resnet18", "torchvision.models.get_model"),
    ],
)
def test_failed_download_names_the_way_out(monkeypatch, model, patched, fault):
    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(patched, fail)
    with pytest.raises(ResourceError, match=f"'{model}' could not be fetched .*give the file"):
        build(model, num_classes=2, weights="pretrained")


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "inception_v3"])
@pytest.mark.parametrize("classes", [1000, 6])
def test_pretrained_torchvision_network_gets_a_new_head_only_if_needed(monkeypatch, name, classes):
    built = []

    def get_model(name, weights, **keywords):
        assert weights == "DEFAULT"
        built.append(ORIGINAL(name, init_weights=False, **keywords) if keywords else ORIGINAL(name))
        return built[-1]

    monkeypatch.setattr("torchvision.models.get_model", get_model)
    with torch.device("meta"):
        network = build(f"torchvision/{name}", num_classes=classes, weights="pretrained").eval()
    assert network is built[0]
    assert network(torch.empty(2, 3, 96, 96, device="meta")).shape == (2, classes)


def test_pretrained_timm_network_asks_timm(monkeypatch):
    requests = []
    monkeypatch.setattr(
        "timm.create_model", lambda *a, **k: requests.append((a, k)) or nn.Identity()
    )
    build("timm/resnet18.a1_in1k", num_classes=3, in_channels=2, weights="pretrained")
    want = {"pretrained": True, "num_classes": 3, "in_chans": 2}
    assert requests == [(("resnet18.a1_in1k",), want)]


def test_loaded_weights_give_the_same_outputs_bit_for_bit(tmp_path):
    first = build("cifar/resnet8", num_classes=4).eval()
    save_file(first.state_dict(), tmp_path / "net.safetensors")
    second = build("cifar/resnet8", num_classes=4, weights=str(tmp_path / "net.safetensors"))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(first(images), second.eval()(images))


def test_weights_for_other_classes_leave_the_head_as_it_is(tmp_path):
    save_file(build("cifar/resnet8", num_classes=4).state_dict(), tmp_path / "net.safetensors")
    with pytest.warns(UserWarning, match=r"fc\.weight, fc\.bias left out"):
        build("cifar/resnet8", num_classes=5, weights=str(tmp_path / "net.safetensors"))


def test_names_of_all_families():
    everything = list_models()
    assert {"cifar/resnet18", "timm/resnet18", "torchvision/resnet18"} <= set(everything)
    assert len(everything) == len(set(everything))
    assert {"torchvision/deeplabv3_resnet50", "torchvision/fcos_resnet50_fpn"} <= set(everything)
    assert {"fpn/small", "yolov5/n", "yolov5/x"} <= set(everything)
    assert not [n for n in everything if "quantized" in n or "maskrcnn" in n]


def test_names_for_hints_are_those_of_the_libraries():
    everything = list_models()
    for library in ("timm", "torchvision"):
        names = {f"{library}/{name}" for name in names_in_source(library)}
        of_library = {name for name in everything if name.startswith(f"{library}/")}
        assert of_library <= names
        assert all("rcnn" in name for name in names - of_library)  # with masks or key points
    assert names_in_source("no_such_library") == []


def test_no_network_of_a_library_is_called_absent():
    known = list(timm.models._registry._model_entrypoints)  # older names among them
    shuffled = sorted(known)[:: len(known) // 40]
    for name in (*shuffled, "convnext_tiny_in22ft1k", "resnet50.a1_in1k", "ig_resnext101_32x48d"):
        assert timm.is_model(name)
        assert not is_absent_from_source("timm", name)
    for name in ("resnet50", "fcn_resnet50", "ssd300_vgg16", "retinanet_resnet50_fpn_v2"):
        assert not is_absent_from_source("torchvision", name)
    assert is_absent_from_source("timm", "resnte50")
    assert not is_absent_from_source("no_such_library", "resnet50")


@pytest.mark.parametrize(
    ("pattern", "want"),
    [
        ("CIFAR/vgg1", ["vgg11_bn", "vgg13", "vgg13_bn", "vgg16_bn", "vgg19_bn"]),
        ("cifar/vgg1[13]*", ["vgg11_bn", "vgg13", "vgg13_bn"]),
        ("resnet10_w??", ["resnet10_w16", "resnet10_w32"]),
    ],
)
def test_names_by_pattern(pattern, want):
    assert list_models(pattern) == [f"cifar/{n}" for n in want]
