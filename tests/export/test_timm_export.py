"""A folder for timm: what timm builds from it, and how its transform prepares a picture."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from exported_runs import make_run
from PIL import Image, ImageOps
from torch import nn

from selfdistill.core import ArtifactError, ConfigError, ResourceError, RunBusyError
from selfdistill.data import ImageData
from selfdistill.data.augment import normalize
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.data.preparation import preparation_of
from selfdistill.export.package import export_run
from selfdistill.export.timm_export import check_timm_network, pretrained_cfg, write_timm
from selfdistill.export.timm_usage import timm_code, timm_sentences
from selfdistill.models import build
from selfdistill.models.one_stage import OneStageDetector
from selfdistill.modules.composite import CompositeNetwork
from selfdistill.tasks.classification import Classification


def made_data(shape=(3, 32, 32), **changes):
    images = InMemoryImages(torch.zeros(2, *shape, dtype=torch.uint8), torch.zeros(2).long())
    mean, std = (0.2, 0.4, 0.6)[: shape[0]], (0.2, 0.25, 0.3)[: shape[0]]
    fields = {"crop_padding": 0, "flip": False, "resized_crop": False}
    return ImageData("x", images, None, None, list("abcde"), mean, std, **fields, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of a network of timm with an exit, its data, and the folder for timm."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=5)
    place = tmp_path_factory.mktemp("timm") / "run"
    task = Classification("abcde", torch.zeros(2, 3, 16, 16))
    run, data = make_run(network, task, place, taps="layer1,layer2")
    return run, data, export_run(run, data, exit="student", format="timm")


def test_timm_loads_the_network_of_the_run(made):
    run, data, result = made
    assert result.path == run.path / "export" / "student-timm"
    names = [file.name for file in sorted(result.path.iterdir())]
    assert names == ["README.md", "config.json", "model.safetensors"]
    loaded = timm.create_model(f"local-dir:{result.path}", pretrained=True).eval()
    network = run.method.predictors()["student"].eval()
    config = timm.data.resolve_model_data_config(loaded)
    images = data.val.images
    with torch.no_grad():
        actual = loaded(normalize(images, config["mean"], config["std"]))
        expected = network(normalize(images, data.mean, data.std))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert loaded.pretrained_cfg["label_names"] == data.classes
    assert set(loaded.state_dict()) == set(network.state_dict())
    assert (result.verification.images, result.verification.holds) == (40, True)


def test_config_has_the_form_of_timm_s_own(made):
    _, data, result = made
    config = json.loads((result.path / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("test_resnet", 5)
    assert config["num_features"] == 96
    assert config["label_names"] == data.classes
    images = config["pretrained_cfg"]
    assert images["input_size"] == [3, 16, 16]
    assert (images["mean"], images["std"]) == (list(data.mean), list(data.std))
    assert not {"license", "url", "hf_hub_id", "tag"} & images.keys()


def test_timm_can_replace_head_and_channels(made):
    place = f"local-dir:{made[2].path}"
    loaded = timm.create_model(place, pretrained=True, num_classes=3, in_chans=1).eval()
    assert loaded(torch.zeros(1, 1, 16, 16)).shape == (1, 3)


def test_the_card_s_lines_classify_a_picture(made, tmp_path, monkeypatch, capsys):
    run, data, result = made
    card = (result.path / "README.md").read_text()
    assert card.startswith("---\npipeline_tag: image-classification\nlibrary_name: timm\n")
    assert f"run by timm {timm.__version__} on 40 validation images" in card
    (usage,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    image = data.val.images[:1]
    Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(tmp_path / "x.png")
    monkeypatch.chdir(result.path)
    exec(usage.replace("picture.jpg", str(tmp_path / "x.png")), {})
    inputs = normalize(image, data.mean, data.std)
    predicted = data.classes[int(run.method.predictors()["student"].eval()(inputs).argmax())]
    assert capsys.readouterr().out == f"{[predicted]}\n"


def test_an_exit_is_refused(made):
    run, data, _ = made
    sentence = r"'exit1' \(EarlyExit\) is none; take --exit student, or --format onnx, pt2 or saf"
    with pytest.raises(ConfigError, match=sentence):
        export_run(run, data, exit=1, format="timm")
    assert not (run.path / "export" / "exit1-timm").exists()


def test_a_folder_that_exists_is_left_alone(made, tmp_path):
    run, data, _ = made
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{")
    with pytest.raises(RunBusyError, match="exists already"):
        export_run(run, data, exit="student", format="timm", out=tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["config.json"]
    assert (tmp_path / "mine" / "config.json").read_text() == "{"


class Composite(CompositeNetwork):
    description = "two networks"


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (lambda: build("cifar/resnet8", num_classes=5), "(ResNet) is none; take --format onnx, "),
        (lambda: build("timm/test_resnet@layer1", num_classes=5), "take --format onnx, pt2 or saf"),
        (lambda: build("fpn/small", num_classes=5), "take --format onnx, pt2 or safetensors"),
        (lambda: nn.Linear(2, 5), "'student' (Linear) is none"),
        (lambda: Composite(), "take --format onnx or pt2"),
        (lambda: OneStageDetector.__new__(OneStageDetector), "take --format safetensors"),
    ],
)
def test_networks_of_others_are_refused(network, sentence):
    method = SimpleNamespace(predictors=lambda: {"student": network()})
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check_timm_network(method, "student")


@pytest.mark.parametrize("config", [None, "resnet18", {}, {"architecture": "of_another_library"}])
def test_a_name_that_timm_does_not_know_is_refused(config):
    network = nn.Linear(2, 5)
    network.pretrained_cfg = config
    method = SimpleNamespace(predictors=lambda: {"student": network})
    with pytest.raises(ConfigError, match="timm is for whole networks that timm builds"):
        check_timm_network(method, "student")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("test_vit", (3, 32, 32)), ("test_efficientnet", (1, 32, 48)), ("test_convnext", (2, 32, 32))],
)
def test_nothing_of_timm_s_own_weights_is_kept(name, shape, tmp_path):
    torch.manual_seed(0)
    data = made_data((shape[0], *shape[1:]))
    network = timm.create_model(name, num_classes=5, in_chans=shape[0]).eval()
    network.pretrained_cfg |= {"custom_load": True, "label_offset": 1, "license": "other"}
    images = torch.rand(3, *shape)
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    expected = network((images - mean) / std)
    labels = {"label_names": data.classes, "metadata": {}}
    loaded = write_timm(network, tmp_path / "model.safetensors", data, **labels)
    torch.testing.assert_close(loaded(images), expected, rtol=1e-4, atol=1e-4)
    written = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert not {"label_offset", "license", "tag", "hf_hub_id"} & written.keys()
    assert written["custom_load"] is False
    assert written["input_size"] == list(shape)


def test_weights_that_do_not_fit_timm_s_network(tmp_path):
    network = timm.create_model("test_resnet", num_classes=5)
    network.fc = nn.Linear(96, 7)
    with pytest.raises(ConfigError, match=r"timm builds another network by the name 'test_resnet'"):
        write_timm(network, tmp_path / "m.safetensors", made_data(), label_names=[], metadata={})


def test_a_network_that_was_changed_since_is_not_kept(tiny_task, tmp_path):
    network = timm.create_model("test_resnet", num_classes=5)
    network.maxpool = nn.Identity()  # of no weights
    run, data = make_run(network, tiny_task, tmp_path / "run", method="ce", taps="auto")
    with pytest.raises(ArtifactError, match="timm file says something else than the network"):
        export_run(run, data, format="timm")
    assert not list((run.path / "export").iterdir())


def test_a_disk_that_is_full(tiny_task, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    network = timm.create_model("test_resnet", num_classes=5)
    run, data = make_run(network, tiny_task, tmp_path / "run", method="ce", taps="auto")
    monkeypatch.setattr("selfdistill.export.timm_export.write_weights", full)
    with pytest.raises(ResourceError, match="could not be written: No space left on device"):
        export_run(run, data, format="timm")
    assert not list((run.path / "export").iterdir())


def prepared(data, picture, place):
    """A picture on the disk by timm's transform and by ours, both in levels of 255."""
    Image.fromarray(picture).save(place / "x.png")
    config = timm.data.resolve_data_config(pretrained_cfg=pretrained_cfg(data))
    transform = timm.data.create_transform(**config, is_training=False)
    image = Image.open(place / "x.png").convert("L" if len(data.mean) == 1 else "RGB")
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    expected = preparation_of(data).read(place / "x.png").pixels.float()
    return (transform(image) * std + mean) * 255, expected


def noise(*size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "shape", "fit"),
    [
        ((90, 40), (3, 32, 24), {"fit": "stretch"}),
        ((7, 50), (3, 32, 32), {"fit": "stretch"}),
        ((50, 50), (3, 32, 32), {"fit": "crop"}),
        ((32, 24), (3, 32, 24), {"fit": "crop"}),
        ((9, 9), (3, 32, 32), {"fit": "crop"}),
        ((300, 300), (3, 224, 224), {"fit": "crop", "resize_ratio": 256 / 224}),
        ((96, 64), (3, 32, 32), {"fit": "crop"}),
    ],
)
def test_the_transform_is_exact(size, shape, fit, tmp_path):
    actual, expected = prepared(made_data(shape, **fit), noise(*size), tmp_path)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(90, 41), (41, 90), (33, 170), (97, 98), (35, 34)])
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 32, 24), (3, 33, 33)])
@pytest.mark.parametrize("ratio", [1.0, 256 / 224, 1.1])
def test_a_crop_is_one_pixel_aside_at_most(size, shape, ratio, tmp_path):
    """Where a pixel comes from is its color."""
    y, x = np.meshgrid(*(np.linspace(0, 255, side) for side in size), indexing="ij")
    picture = np.stack([x, y, y], 2).round().astype(np.uint8)
    data = made_data(shape, fit="crop", resize_ratio=ratio)
    actual, expected = prepared(data, picture, tmp_path)
    scale = ratio * max(shape[1] / size[0], shape[2] / size[1])
    for channel, side in ((0, size[1]), (1, size[0])):
        one_pixel = 255 / (side * scale - 1)
        assert (actual - expected)[channel].abs().max() < 1.1 * one_pixel + 2


@pytest.mark.parametrize("size", [(90, 40), (64, 64), (16, 16), (300, 200)])
def test_color_as_gray(size, tmp_path):
    data = made_data((1, 32, 32), fit="stretch")
    actual, expected = prepared(data, noise(*size), tmp_path)
    assert (actual - expected).abs().max() < 2.01
    gray = np.repeat(noise(*size)[..., :1], 3, 2)
    torch.testing.assert_close(*prepared(data, gray, tmp_path), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "fit", "words", "others"),
    [
        ((3, 8, 8), {"fit": "stretch"}, ["as training did.", "put on white"], ["nearly", "```"]),
        (
            (3, 8, 8),
            {"fit": "crop"},
            ["one pixel at most", "def prepared"],
            ["enlarges", "gray before"],
        ),
        ((3, 8, 8), {"fit": "crop", "resize_ratio": 1.2}, ["enlarges a picture of just 8 × 8"], []),
        ((1, 8, 8), {"fit": "stretch"}, ["gray before the resize"], ["pixel at most", "enlarges"]),
        ((2, 8, 8), {"fit": "stretch"}, ["hf-hub:USER/NAME"], ["transform", "```"]),
    ],
)
def test_the_card_says_where_the_transform_differs(shape, fit, words, others):
    text = timm_sentences(made_data(shape, **fit))
    assert all(word in text for word in words)
    assert not any(word in text for word in others)


@pytest.mark.parametrize(
    ("shape", "fit"),
    [
        ((1, 32, 32), {"fit": "stretch"}),
        ((3, 32, 24), {"fit": "crop"}),
        ((1, 33, 32), {"fit": "crop", "resize_ratio": 1.1}),
    ],
)
def test_the_exact_lines_are_exact(shape, fit, tmp_path):
    data = made_data(shape, **fit)
    _, expected = prepared(data, noise(90, 41), tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", timm_sentences(data), re.DOTALL)
    config = timm.data.resolve_data_config(pretrained_cfg=pretrained_cfg(data))
    scope = {"torch": torch, "Image": Image, "ImageOps": ImageOps, "config": config}
    exec(code.replace("picture.jpg", str(tmp_path / "x.png")), scope)
    expected = normalize(expected.to(torch.uint8)[None], data.mean, data.std)
    torch.testing.assert_close(scope["images"], expected, rtol=1e-5, atol=1e-5)


def test_lines_for_images_that_are_no_pictures(tmp_path, monkeypatch, capsys):
    data = made_data((2, 32, 32))
    network = timm.create_model("test_resnet", num_classes=5, in_chans=2)
    weights = tmp_path / "model.safetensors"
    loaded = write_timm(network, weights, data, label_names=data.classes, metadata={})
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    monkeypatch.chdir(tmp_path)
    exec(timm_code(data), {})
    predicted = loaded(torch.from_numpy(images).float() / 255).argmax(1)
    assert capsys.readouterr().out == f"{[data.classes[k] for k in predicted]}\n"


def test_embeddings_have_no_classes_to_print():
    code = timm_code(made_data(task="embedding"))
    compile(code, "card", "exec")
    assert "embedding = network(images)" in code
    assert "label_names" not in code
