"""Networks of other channels than the data: trained, evaluated, predicted and exported alike."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import selfdistill
from selfdistill.core import DataError
from selfdistill.data import Loader, class_folders
from selfdistill.data.preparation import preparation_of
from selfdistill.engine.callback import Callback
from selfdistill.models import build
from selfdistill.recipe import teachers
from selfdistill.recipe.build_run import RunInput, build_run, load_data, run_input
from selfdistill.recipe.schema import parse

NETWORKS = {
    "classification": "cifar/resnet8",
    "segmentation": "fpn/small",
    "detection": "yolov5/n",
}
SMALL = {"epochs": 1, "batch_size": 32, "max_train_images": 64, "model": "cifar/resnet8"}
OPTIONS = {"epochs": 1, "batch_size": 4, "method": "ce", "val_fraction": 0.25}


class Lines(Callback):
    def __init__(self):
        self.summary, self.messages = {}, []

    def on_start(self, summary):
        self.summary = summary

    def on_message(self, message):
        self.messages.append(message)


def color_set(place, task):
    """Twelve color pictures of one size."""
    draw = np.random.default_rng(0)
    for number in range(12):
        pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        folder = place / ("ab"[number % 2] if task == "classification" else "images")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        if task == "segmentation":
            (place / "masks").mkdir(exist_ok=True)
            mask = np.tile(np.arange(32) > 15, (32, 1)).astype(np.uint8)
            Image.fromarray(mask).save(place / "masks" / f"{number}.png")
        elif task == "detection":
            (place / "labels").mkdir(exist_ok=True)
            (place / "labels" / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.5 0.4\n")
    return place


@pytest.mark.slow
@pytest.mark.parametrize("task", NETWORKS)
def test_a_gray_network_on_color(task, tmp_path):
    """Luma before the network is what a color network does whose stem weighs by luma."""
    folder = color_set(tmp_path / "set", task)
    network = build(NETWORKS[task], num_classes=2, in_channels=1)
    lines = Lines()
    keys = {**OPTIONS, "task": task, "data": f"folder:{folder}", "image_size": 32}
    run = selfdistill.train(model=network, out=tmp_path / "run", callback=lines, **keys)
    assert "1 × 32 × 32, color converted to gray" in lines.summary["data"]
    facts = json.loads((run.path / "data.json").read_text())
    assert (facts["shape"], len(facts["mean"])) == ([1, 32, 32], 1)
    again = selfdistill.load(run.path, model=copy.deepcopy(network))
    scores = [score.val_score for score in run.exits]
    assert [score.val_score for score in again.evaluate("val").exits] == pytest.approx(scores)
    other = again.evaluate("val", data=f"folder:{folder}").exits
    assert [score.val_score for score in other] == pytest.approx(scores)
    path = next(p for p in sorted(folder.rglob("*.png")) if "masks" not in p.parts)
    luma = np.array(Image.open(path).convert("L"))
    assert np.array_equal(preparation_of(again.data).read(path).pixels[0].numpy(), luma)
    result = again.export(exit="student")
    assert "(B, 1, 32, 32)" in (result.path / "README.md").read_text()
    (ours,), (files,) = (selfdistill.predict(source, path) for source in (again, result.path))
    if task == "segmentation":
        assert (ours.mask == files.mask).mean() > 0.99
    assert [c.name for c in ours.classes] == [c.name for c in files.classes]
    assert len(ours.boxes) == len(files.boxes)


@pytest.mark.slow
def test_a_color_network_on_gray(tmp_path):
    lines = Lines()
    keys = {"epochs": 1, "batch_size": 32, "max_train_images": 64, "method": "exits"}
    network = build("cifar/resnet8", num_classes=10)
    run = selfdistill.train(model=network, out=tmp_path / "run", callback=lines, **keys)
    assert "gray images repeated in 3 channels" in lines.summary["data"]
    again = selfdistill.load(run.path, model=build("cifar/resnet8", num_classes=10))
    scores = [score.test_score for score in run.exits]
    assert [score.test_score for score in again.evaluate("test").exits] == pytest.approx(scores)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(tmp_path / "x.png")
    for format in ("onnx", "pt2"):
        result = again.export(exit="student", format=format)
        card = (result.path / "README.md").read_text()
        assert "(B, 3, 8, 8)" in card
        assert "Gray pictures are repeated" in card
        (ours,), (files,) = (
            selfdistill.predict(source, tmp_path / "x.png") for source in (again, result.path)
        )
        assert ours.classes[0].name == files.classes[0].name
    more = selfdistill.train(
        model=build("cifar/resnet8", num_classes=10), out=run.path, resume=True, epochs=2
    )
    assert more.data.train.shape[0] == 3


@pytest.mark.parametrize("resized_crop", [True, False])
def test_streamed_pictures_are_converted_too(resized_crop, tmp_path, monkeypatch):
    monkeypatch.setattr(class_folders, "_IN_MEMORY", 0)
    folder = color_set(tmp_path / "set", "classification")
    data = load_data(parse({**OPTIONS, "data": f"folder:{folder}", "image_size": 16}))
    loaders = [
        Loader(
            part, batch_size=4, seed=0, mean=(0.0,) * part.shape[0], std=(1.0,) * part.shape[0],
            crop_padding=0, flip=False, resized_crop=resized_crop,
        )
        for part in (data.train, data.train.with_channels(1))
    ]  # fmt: skip
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    for (color,), (gray,) in zip(*(loader.epoch(0) for loader in loaders), strict=True):
        assert gray.inputs.shape == (4, 1, 16, 16)
        expected = (color.inputs * weights).sum(1, keepdim=True)
        torch.testing.assert_close(gray.inputs, expected, atol=1 / 255, rtol=0)


@pytest.fixture(scope="module", params=[1, 3])
def taught(request, tmp_path_factory):
    """A run of a network of so many channels, and its weights in a file."""
    module = build("cifar/resnet8", num_classes=10, in_channels=request.param)
    place = tmp_path_factory.mktemp("teacher") / "run"
    run = selfdistill.train(**SMALL | {"model": module}, method="ce", out=place)
    return run, run.export(exit="student", format="safetensors").file


@pytest.mark.parametrize("kind", ["run", "file", "module"])
def test_teachers_of_other_channels(taught, kind):
    """A teacher sees what it was trained on, whatever the student's channels are."""
    taught, file = taught
    keys, own = SMALL, taught.data
    channels = own.train.shape[0]
    plain = copy.deepcopy(taught.network).cpu().eval()
    recipe = parse({**keys, "method": "kd", "teacher": "Module" if kind == "module" else str(file)})
    student = build("cifar/resnet8", num_classes=10, in_channels=4 - channels)
    given = run_input(recipe, model=student)
    if kind == "module":
        components = build_run(recipe, given, model=student, teacher=copy.deepcopy(plain))
    elif kind == "file":
        components = build_run(recipe, given, model=student)
    else:
        state = dict(plain.state_dict())
        named = parse({**keys, "method": "ce"})
        with pytest.MonkeyPatch.context() as patch:  # its network was no name
            patch.setattr(teachers, "run_weights", lambda path: (named, state))
            recipe = recipe.model_copy(update={"teacher": str(taught.path)})
            components = build_run(recipe, given, model=student)
    words = "converted to gray" if channels == 1 else "repeated in 3 channels"
    assert words in components.teacher_note
    data = components.data
    pixels = torch.rand(2, 1, 8, 8).expand(-1, 4 - channels, -1, -1)

    def normalized(images, mean, std):
        return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    with torch.no_grad():
        output = components.teacher.eval()(normalized(pixels, data.mean, data.std))
        shown = pixels[:, :1].expand(-1, channels, -1, -1)
        expected = plain(normalized(shown, own.mean, own.std))
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_channels_that_nothing_becomes(tmp_path):
    data = load_data(parse({}))
    four = selfdistill.data.InMemoryImages(
        data.train.images.expand(-1, 4, -1, -1)[:64], data.train.labels[:64]
    )
    data = replace(data, train=four, val=None, test=None, mean=data.mean * 4, std=data.std * 4)
    run = selfdistill.train(
        data=data, model="cifar/resnet8", method="ce", epochs=1, batch_size=32, out=tmp_path / "r"
    )
    assert run.data.train.shape[0] == 4
    components = build_run(run.recipe, RunInput(data))
    assert components.network.state_dict().keys() == run.network.state_dict().keys()
    with pytest.raises(DataError, match="have 1 channels and the run"):
        run.evaluate("test", data="digits")
