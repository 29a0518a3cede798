"""Objects of another kind than the Python functions take: one sentence, and no traceback."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import selfdistill
from selfdistill.core import ConfigError, DataError
from selfdistill.runs.pictures import given_pictures

IMAGES = torch.rand(2, 1, 8, 8)
TINY = {"method": "ce", "epochs": 1, "max_train_images": 64, "batch_size": 32, "quiet": True}


def network() -> nn.Module:
    halves = [nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*halves, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


class Watcher:
    """Looks like a callback and is none."""

    def on_epoch(self, entry):
        raise AssertionError


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"network": "cifar/resnet8"}, "a network is a torch.nn.Module here, .* and this is str"),
        ({"network": None}, "a network is a torch.nn.Module here, .* and this is NoneType"),
        ({"method": "kd", "teacher": "run"}, "a teacher is a torch.nn.Module here"),
        ({"method": "dml", "peers": "cifar/resnet8"}, "a peer is a torch.nn.Module here"),
        ({"method": "dml", "peers": [network(), 3]}, "a peer is .* and this is int"),
    ],
)
def test_wrap_takes_modules(arguments, sentence):
    given = {"network": network(), "method": "exits", **arguments}
    with pytest.raises(ConfigError, match=sentence):
        selfdistill.wrap(**given, example=IMAGES, classes=10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("role", ["network", "peers"])
def test_weights_and_images_have_one_type(dtype, role):
    given = {"network": network()} | {role: network().to(dtype)}
    sentence = f"has {str(dtype)[6:]} weights and the images are float32; .*network.float()"
    with pytest.raises(ConfigError, match=sentence):
        selfdistill.wrap(**given, method="dml", example=IMAGES, classes=10)


def test_one_peer_needs_no_list(tmp_path):
    peer = network()
    before = peer[0].weight.clone()
    criterion = selfdistill.wrap(network(), "dml", peers=peer, example=IMAGES, classes=10)
    assert any(module is peer for module in criterion.modules())
    keys = {**TINY, "method": "dml"}
    selfdistill.train(model=network(), peers=peer, out=tmp_path / "run", **keys)
    assert not torch.equal(peer[0].weight, before)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": nn.Sequential}, "a model is a name or a torch.nn.Module, .* class Sequential"),
        ({"model": network().half()}, "has float16 weights and the images are float32"),
        ({"teacher": 3}, "a teacher is a name or a torch.nn.Module, and this is int"),
        ({"peers": [3]}, "a peer is a name or a torch.nn.Module, and this is int"),
        ({"data": IMAGES}, "data is a name.* InMemoryImages .* and this is Tensor"),
        ({"data": [IMAGES]}, "data is a name.* and this is list"),
        (
            {"weights": {"a": IMAGES}},
            "weights is pretrained, or the path .* this is dict",
        ),
        ({"callback": print}, "a callback is an object of a class made from selfdistill.Callback"),
        ({"callback": [Watcher()]}, "a callback is an object of a class"),
        ({"callback": selfdistill.Callback}, "a callback is an object of a class"),
    ],
)
def test_train_says_what_it_takes(tmp_path, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        selfdistill.train(**{**TINY, "model": network(), **arguments}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("pictures", "sentence"),
    [
        (3, "a picture is a path, a picture of Pillow, an array or a tensor, and this is int"),
        ([Image.new("L", (8, 8)), b"x"], "and this is bytes; save it as a picture"),
        (np.zeros((8, 8, 3)), r"uint8 with 1, 3 or 4 channels, and this is float64 of shape \(8"),
        (np.zeros((3, 8, 8), np.uint8), r"an array \(H, W, C\) of uint8"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"a tensor \(C, H, W\) of uint8"),
        (IMAGES.float() / 255, "and this is torch.float32 .* not normalized"),
        (np.zeros((0, 8, 3), np.uint8), "has no pixels; leave it out"),
        (np.zeros(8, np.uint8), "uint8 with 1, 3 or 4 channels"),
        ([], "no picture is given"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no picture is given"),
    ],
)
def test_pictures_are_paths_or_pixels(pictures, sentence):
    with pytest.raises(DataError, match=sentence):
        given_pictures(pictures)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "cifar/resnet8"}, "a model is a torch.nn.Module here, no name, and this is str"),
        ({"teacher": "run"}, "a teacher is a torch.nn.Module here"),
        ({"peers": network()}, "peers is a list of modules, and this is Sequential"),
        ({"data": IMAGES}, "data is an ImageData here, no name, and this is Tensor"),
    ],
)
def test_load_says_what_it_takes(tmp_path, arguments, sentence):
    selfdistill.train(model="cifar/resnet8", out=tmp_path / "run", **TINY)
    with pytest.raises(ConfigError, match=sentence):
        selfdistill.load(tmp_path / "run", **arguments)


@pytest.mark.parametrize("verb", ["diagnose", "compare"])
def test_other_verbs_say_what_a_callback_is(tmp_path, verb):
    keys = {"methods": ["ce"], "seeds": 1} if verb == "compare" else {"method": "ce"}
    with pytest.raises(ConfigError, match=r"callback is an object of a .*Callback's class, and"):
        getattr(selfdistill, verb)(callback=print, out=tmp_path / "out", **keys)
