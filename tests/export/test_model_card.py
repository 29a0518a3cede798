"""The model card: what a reader has to know, and nothing that is not known."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image, ImageOps

from selfdistill.data import ImageData
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.data.open_image import open_rgb
from selfdistill.data.preparation import preparation_of
from selfdistill.export.dataset_license import dataset_license, hub_name
from selfdistill.export.formats import load_format
from selfdistill.export.fuse_batchnorm import FusedNetwork
from selfdistill.export.model_card import CardData, model_card
from selfdistill.export.verify import ExportVerification
from selfdistill.records.exit_scores import ExitScore

RECIPE = {"method": "muse+cskd", "model": "timm/resnet10t", "data": "cifar10", "epochs": 7}
RECIPE |= {"seed": 3, "options": {"muse": {"combine": "mul"}}}
STUDENT = ExitScore("student", 4_000, 800_000, 0.91, 0.9)
EXIT = ExitScore("exit1", 1_000, 200_000, 0.85, 0.84)


def page(score=EXIT, format="onnx", classes=3, **changes):
    pixels = InMemoryImages(torch.zeros(20, 3, 32, 24, dtype=torch.uint8), torch.zeros(20).long())
    names = [f"class {i}" for i in range(classes)]
    fields = {"classes": names, "mean": (0,) * 3, "std": (1,) * 3}
    parts = {"train": pixels, "val": pixels, "test": pixels} | changes.pop("parts", {})
    data = ImageData("x", **parts, **fields, crop_padding=0, flip=False, resized_crop=False)
    verification = ExportVerification("test", 20, True, "logits are alike", 0.85)
    fused = FusedNetwork(torch.nn.Identity(), 4, 1)
    recipe = tomli_w.dumps({**RECIPE, **changes})
    return model_card(
        CardData(recipe, data, score, STUDENT, verification, load_format(format), fused)
    )


def test_what_it_says():
    card = page()
    assert card.startswith("---\npipeline_tag: image-classification\nlibrary_name: onnx\n")
    assert "# timm/resnet10t on cifar10: exit1" in card
    assert "(B, 3, 32, 24)" in card
    assert "| validation | 20 | 85.00% | 91.00% |" in card
    assert "| test | 20 | 84.00% | 90.00% |" in card
    assert "seed 3, evaluated after the last of 7 epochs" in card
    assert "| multiply-adds, 32 × 24 | 200,000 | 25.0% |" in card
    assert "20 test images beside the network as it was in training: logits are alike." in card
    assert "The file's own accuracy: 85.00%." in card
    assert "fused into convolutions: 4; left to the ONNX exporter: 1" in card
    assert "- `muse`: paper; weights" in card
    assert "- `cskd`: paper and its authors' code" in card
    assert "Krizhevsky" in card
    assert 'combine = "mul"' in card


def test_a_run_that_held_nothing_out():
    score = replace(EXIT, val_score=None, test_score=None)
    assert "Not known: the run held no images out" in page(score, parts={"val": None, "test": None})


def test_many_classes_are_cut_short():
    card = page(classes=100)
    assert "class 19, … (100 in all" in card
    assert "class 20" not in card


@pytest.mark.parametrize(
    ("model", "row", "line"),
    [
        ("timm/resnet10t", STUDENT, "timm.create_model('resnet10t', num_classes=3, in_chans=3)"),
        ("torchvision/vgg11", STUDENT, "models.get_model('vgg11', num_classes=3)"),
        ("cifar/resnet8", STUDENT, "build('cifar/resnet8', num_classes=3, in_channels=3)"),
        ("MyNet", STUDENT, "network = MyNet(...)"),
        ("cifar/resnet8", EXIT, "network = ...  # cifar/resnet8, or its first layers"),
    ],
)
def test_how_weights_are_loaded(model, row, line):
    card = page(row, "safetensors", model=model)
    assert line in card
    assert 'load_state_dict(load_file("model.safetensors"))' in card


@pytest.mark.parametrize("format", ["onnx", "pt2", "safetensors"])
def test_the_code_is_python(format):
    for model in ("timm/resnet10t", "torchvision/vgg11", "cifar/resnet8", "MyNet"):
        for row in (STUDENT, EXIT):
            code = re.search(r"```python\n(.*?)```", page(row, format, model=model), re.DOTALL)[1]
            compile(code, "card", "exec")
            assert len(code.splitlines()) <= 24


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(24, 32), (90, 40), (7, 50), (32, 24)])
@pytest.mark.parametrize("ratio", [1.0, 256 / 224])
def test_the_code_prepares_a_picture_as_training_does(tmp_path, fit, channels, size, ratio):
    pixels = torch.zeros(2, channels, 32, 24, dtype=torch.uint8)
    data = ImageData(
        "x", InMemoryImages(pixels, torch.zeros(2).long()),
        None, None, ["a", "b"], (0,), (1,), 0, False, False, fit=fit, resize_ratio=ratio,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    picture = Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8))
    picture.save(tmp_path / "x.png")
    code = load_format("onnx").code(data, "")
    scope = {"np": np, "Image": Image, "ImageOps": ImageOps}
    exec(code[code.index("def prepared") : code.index("session")], scope)
    expected = preparation_of(data).read(tmp_path / "x.png").pixels.numpy()
    assert np.array_equal(scope["prepared"](tmp_path / "x.png"), expected)


@pytest.mark.parametrize(
    ("data", "license"),
    [
        ("digits", "CC BY 4.0"),
        ("fashion_mnist", "MIT"),
        ("svhn", "non-commercial"),
        ("npz:some/where/bloodmnist.npz", "CC BY 4.0"),
        ("npz:bloodmnist_64.npz", "CC BY 4.0"),
        ("npz:dermamnist.npz", "CC BY-NC 4.0"),
        ("npz:ours.npz", "not known"),
        ("folder:digits", "not known"),
        ("mnist", "not known"),
    ],
)
def test_licenses(data, license):
    assert license in dataset_license(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("cifar100", "uoft-cs/cifar100"),
        ("hf:AI-Lab-Makerere/beans", "AI-Lab-Makerere/beans"),
        ("hf:stored/here", ""),
        ("hf:beans/train.parquet", ""),
        ("hf:beans/data/*.parquet", ""),
        ("hf:../beans", ""),
        ("hf:beans", ""),
        ("digits", ""),
        ("folder:cifar100", ""),
    ],
)
def test_names_on_the_hub(data, name, tmp_path, monkeypatch):
    (tmp_path / "stored" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_name(data) == name
    line = f'datasets: ["{name}"]' if name else "---"
    front = page(data=data).split("\n# ")[0]
    assert line in front.splitlines()
    assert ("datasets:" in front) == bool(name)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "L", "RGB"])
def test_the_card_s_lines_read_a_picture_as_training_did(mode, tmp_path):
    """Also what is transparent, on white, and what has 16 bits."""
    draw = np.random.default_rng(0)
    if mode == "I;16":
        picture = Image.fromarray(draw.integers(0, 65536, (32, 24), dtype=np.uint16))
    else:
        pixels = Image.fromarray(draw.integers(0, 256, (32, 24, 4), dtype=np.uint8), "RGBA")
        picture = pixels.quantize(16) if mode == "P" else pixels.convert(mode)
    picture.save(tmp_path / "x.png", **({"transparency": 3} if mode == "P" else {}))
    code = re.search(r"```python\n(.*?)```", page(), re.DOTALL)[1]
    scope = {"np": np, "Image": Image, "ImageOps": ImageOps}
    exec(code[code.index("def prepared") : code.index("session")], scope)
    expected = np.asarray(open_rgb(str(tmp_path / "x.png"))).transpose(2, 0, 1)
    np.testing.assert_array_equal(scope["prepared"](tmp_path / "x.png"), expected)
