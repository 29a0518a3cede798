"""Channels and normalization that a run's network is shown, and who says so."""

import json
import shutil
import tomllib
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import selfdistill
from selfdistill.core import ArtifactError, ConfigError
from selfdistill.data.image_data import OWN
from selfdistill.engine.callback import Callback
from selfdistill.models import TrainedInput, build, published_input
from selfdistill.recipe.build_run import build_run, load_data, run_input
from selfdistill.recipe.document import check_early, typed_recipe
from selfdistill.recipe.network_input import IMAGENETS, as_network_input
from selfdistill.recipe.schema import parse, write

TINY = {"epochs": 1, "max_train_images": 64, "batch_size": 32, "method": "ce"}
TINY |= {"model": "cifar/resnet8"}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def given(module=None, **keys):
    """The data of a run as its network is shown them."""
    return run_input(parse(TINY | keys), model=module).data


def plain(channels, classes=10):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, classes),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a normalization of its own."""
    place = tmp_path_factory.mktemp("input") / "run"
    return selfdistill.train(out=place, mean=0.25, std=[0.125], quiet=True, **TINY)


def test_the_data_set_s_own_is_the_default():
    data = given()
    digits = load_data(parse(TINY | {"max_train_images": None})).train.images / 255
    assert data.mean == pytest.approx((float(digits.double().mean()),), abs=0.01)
    assert data.moments == (data.mean, data.std)
    assert data.normalization == OWN


@pytest.mark.parametrize("channels", [1, 3])
def test_numbers_that_were_not_measured_are_not_called_the_set_s_own(channels):
    """Sets that are read picture by picture have ImageNet's."""
    colored = given().with_channels(3)
    data = replace(colored, mean=IMAGENET[0], std=IMAGENET[1], own_moments=None)
    shown = as_network_input(parse(TINY), data, model=plain(channels))
    assert shown.train.shape[0] == len(shown.mean) == channels
    assert shown.normalization == IMAGENETS


def test_the_recipe_s_comes_first(run):
    for keys in ({}, {"weights": str(run.path)}):
        data = given(mean=0.5, std=(0.25,), **keys)
        assert (data.mean, data.std) == ((0.5,), (0.25,))
        assert data.normalization == "set by mean and std"
        assert data.moments == given().moments


def test_then_that_of_the_weights(run, tmp_path):
    data = given(weights=str(run.path))
    assert (data.mean, data.std) == ((0.25,), (0.125,))
    assert str(run.path) in data.normalization
    shape = '{"shape": [1, 8, 8], "fit": "stretch"}'
    header = {"mean": "[0.5]", "std": "[0.4]", "preparation": shape}
    save_file(run.network.state_dict(), tmp_path / "exported.safetensors", metadata=header)
    data = given(weights=str(tmp_path / "exported.safetensors"))
    assert (data.mean, data.std) == ((0.5,), (0.4,))
    save_file(run.network.state_dict(), tmp_path / "bare.safetensors")
    torch.save(run.network.state_dict(), tmp_path / "bare.pth")
    broken = tmp_path / "broken.safetensors"
    save_file(run.network.state_dict(), broken, metadata=header | {"std": "x"})
    with pytest.raises(ArtifactError, match="are corrupt"):
        given(weights=str(broken))
    for name in ("bare.safetensors", "bare.pth"):
        data = given(weights=str(tmp_path / name))
        assert (data.mean, data.std) == data.moments == given().moments
        assert data.normalization.startswith(OWN)
        assert f"{name}' does not tell its own" in data.normalization


@pytest.mark.parametrize(
    ("model", "mean"),
    [
        ("timm/tf_efficientnet_lite0", (0.5, 0.5, 0.5)),
        ("torchvision/resnet18", IMAGENET[0]),
        ("torchvision/fcn_resnet50", IMAGENET[0]),
        ("torchvision/fasterrcnn_resnet50_fpn_v2", IMAGENET[0]),
        ("fpn/timm/resnet18", IMAGENET[0]),
    ],
)
def test_of_published_weights(model, mean):
    assert published_input(model).mean == mean


@pytest.mark.parametrize("model", ["fpn/small", "cifar/resnet8", "timm/none", "torchvision/none"])
def test_without_published_weights(model):
    assert published_input(model) is None


def test_published_weights_get_gray_images_in_three_channels(monkeypatch):
    fake = TrainedInput(*IMAGENET, (32, 32))
    monkeypatch.setattr("selfdistill.recipe.network_input.published_input", lambda name: fake)
    data = given(weights="pretrained")
    assert (data.mean, data.std) == IMAGENET
    assert data.normalization == "that of the pretrained weights"
    assert data.train.shape == (3, 8, 8)
    assert data.conversion == "gray images repeated in 3 channels"
    gray = load_data(parse(TINY)).train.fetch(torch.arange(3))
    assert torch.equal(data.train.fetch(torch.arange(3)), gray.expand(-1, 3, -1, -1))


def test_a_network_by_name_is_built_for_the_data():
    components = build_run(parse(TINY))
    assert components.data.train.shape[0] == 1
    assert components.data.conversion == ""


def test_torchvision_takes_three_channels_only():
    assert given(model="torchvision/resnet18").train.shape[0] == 3


def test_a_module_says_by_a_trial_what_it_takes():
    assert given(plain(1)).train.shape[0] == 1
    assert given(plain(3)).train.shape[0] == 3
    with pytest.raises(ConfigError, match="takes 5 channels"):
        build_run(parse(TINY), model=plain(5))


def test_weights_say_what_they_take(tmp_path):
    save_file(build("cifar/resnet8", num_classes=7).state_dict(), tmp_path / "w.safetensors")
    with pytest.warns(UserWarning, match="left out"):
        components = build_run(parse({**TINY, "weights": str(tmp_path / "w.safetensors")}))
    assert components.data.train.shape[0] == 3
    mean, std = load_data(parse(TINY)).moments
    assert (components.data.mean, components.data.std) == (mean * 3, std * 3)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"mean": 0.5}, "mean is given and std is not"),
        ({"std": [0.5]}, "std is given and mean is not"),
        ({"mean": [0.5, 0.5], "std": [0.1, 0.1, 0.1]}, "mean has 2 numbers and std has 3"),
        ({"mean": 0.5, "std": 0}, "std = 0 does not fit"),
        ({"mean": -0.5, "std": 1}, "mean = -0.5 does not fit"),
        ({"mean": float("nan"), "std": 1}, "mean = nan does not fit"),
        ({"mean": 0.5, "std": [0.1, float("inf")]}, "std = inf does not fit"),
        ({"mean": [123.7, 116.3, 103.5], "std": [58, 57, 57]}, "divide mean and std by 255"),
        ({"mean": 0.5, "std": 57}, "divide mean and std by 255"),
        ({"mean": "gray", "std": 1}, "mean = 'gray' does not fit"),
        ({"mean": {"r": 1}, "std": 1}, "does not fit"),
    ],
)
def test_refused_without_data(keys, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_early(typed_recipe(keys))


def test_refused_for_the_channels():
    with pytest.raises(ConfigError, match="std has 3 numbers and the network is shown images of 1"):
        given(mean=0.5, std=[0.1, 0.2, 0.3])
    with pytest.raises(ConfigError, match=r"mean has 2 numbers .* give 3, or one for all"):
        given(plain(3), mean=[0.1, 0.2], std=0.5)


def test_a_recipe_keeps_it():
    recipe = parse({**TINY, "mean": 0.5, "std": [0.1, 0.2, 0.3]})
    assert "mean = [\n    0.5,\n]" in write(recipe)
    assert parse(tomllib.loads(write(recipe))) == recipe


def test_the_run_keeps_it(run):
    facts = json.loads((run.path / "data.json").read_text())
    own = load_data(parse(TINY))
    assert (facts["mean"], facts["std"]) == ([0.25], [0.125])
    assert facts["normalization"] == "set by mean and std"
    assert facts["own_moments"] == [list(own.mean), list(own.std)]
    loaded = selfdistill.load(run.path)  # without a warning of other pixels
    assert (loaded.data.mean, loaded.data.std) == ((0.25,), (0.125,))
    assert loaded.data.moments == own.moments


def test_data_of_one_run_in_another(run):
    assert given().normalization == OWN
    other = run_input(parse(TINY), data=run.data).data
    assert (other.mean, other.std) == given().moments
    assert other.normalization == OWN


def test_a_resumed_run_goes_on_with_it(run, tmp_path):
    lines = {}

    class Lines(Callback):
        def on_start(self, summary):
            lines.update(summary)

    copy = shutil.copytree(run.path, tmp_path / "copy")
    resumed = selfdistill.train(out=copy, resume=True, epochs=2, callback=Lines())
    assert resumed.data.mean == (0.25,)
    assert lines["normalization"] == "mean 0.250, std 0.125: set by mean and std"
