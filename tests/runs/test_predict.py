"""Predictions of runs and exported files for pictures: classes, masks and boxes."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import selfdistill
from selfdistill.core import ArtifactError, ConfigError, DataError, RunBusyError
from selfdistill.data.listing import Listing
from selfdistill.export.onnx_export import write_onnx
from selfdistill.runs.save_predictions import _stems

NAMES = {
    "classification": ["blue", "red"],
    "segmentation": ["dark", "light"],
    "detection": ["ant", "wasp"],
}
OPTIONS = {"epochs": 1, "batch_size": 8, "device": "cpu", "method": "exits", "val_fraction": 0.25}
MODELS = {
    "classification": "cifar/resnet8",
    "segmentation": "fpn/small",
    "detection": "yolov5/n",
}


def make_data(place: Path, task: str) -> Path:
    """Sixteen pictures of two sizes, and what is known of them."""
    draw = np.random.default_rng(0)
    for number in range(16):
        height, width = (48, 64) if number % 2 else (40, 32)
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        folder = place / (NAMES[task][number % 2] if task == "classification" else "images")
        folder.mkdir(parents=True, exist_ok=True)
        if task == "classification":
            pixels[..., 2 if number % 2 == 0 else 0] = 255
        elif task == "segmentation":
            (place / "masks").mkdir(exist_ok=True)
            mask = (np.arange(width) > 20).astype(np.uint8) * np.ones((height, 1), np.uint8)
            Image.fromarray(mask).save(place / "masks" / f"{number}.png")
        else:
            (place / "labels").mkdir(exist_ok=True)
            (place / "labels" / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.5 0.4\n")
        Image.fromarray(pixels).save(folder / f"{number}.png")
    if task != "classification":
        (place / "classes.txt").write_text("\n".join(NAMES[task]))
    return place


@pytest.fixture(scope="module", params=list(NAMES))
def trained(request, tmp_path_factory):
    """(run, folder of its pictures)."""
    task, place = request.param, tmp_path_factory.mktemp(request.param)
    folder = make_data(place / "set", task)
    run = selfdistill.train(
        task=task, data=f"folder:{folder}", model=MODELS[task], image_size=64, out=place / "run",
        **OPTIONS,
    )  # fmt: skip
    return run, folder if task == "classification" else folder / "images"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    place = tmp_path_factory.mktemp("classifier")
    folder = make_data(place / "set", "classification")
    run = selfdistill.train(
        data=f"folder:{folder}", model="cifar/resnet8", image_size=32, out=place / "run", **OPTIONS
    )
    return run, folder


def assert_same(one, other):
    """Two predictions, up to rounding."""
    assert (one.path, one.placement) == (other.path, other.placement)
    assert [row.name for row in one.classes] == [row.name for row in other.classes]
    scores = [[row.score for row in p.classes] for p in (one, other)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    # boxes of an untrained detector are as good as tied, in any order
    assert len(one.boxes) == pytest.approx(len(other.boxes), abs=3)
    if one.boxes:
        rows, others = (
            np.array([(len(box.name), *box[1:]) for box in p.boxes]) for p in (one, other)
        )
        matched = np.isclose(rows[:, None], others, rtol=1e-3, atol=0.02).all(-1).any(1)
        assert matched.mean() >= 0.98
    if one.mask is not None:
        assert (one.mask == other.mask).mean() > 0.999


def test_a_run_and_its_export_agree_without_the_data(trained, tmp_path):
    run, folder = trained
    expected = run.predict(folder, exit=1, min_score=0.0)
    paths = [*Listing().class_images([folder])[0]]
    assert [str(p.path) for p in expected] == paths
    file = run.export(exit=1, out=tmp_path / "exit1").file
    alone = shutil.copytree(run.path, tmp_path / "alone")
    text = (alone / "recipe.toml").read_text()
    (alone / "recipe.toml").write_text(text.replace(str(folder.parent), "/gone"))
    for source in (alone, file, file.parent):
        exit = 1 if source == alone else None
        predictions = selfdistill.predict(source, folder, exit=exit, min_score=0.0)
        assert (predictions.predictor, len(predictions)) == ("exit1", 16)
        for one, other in zip(expected, predictions, strict=True):
            assert_same(one, other)


def test_predictions_are_those_of_evaluation(trained):
    """On the images as the run itself decoded them, which come in another order."""
    run, folder = trained
    parts = [run.data.train, run.data.val]
    pixels = torch.cat([part.fetch(torch.arange(len(part))) for part in parts])
    predictions = run.predict(folder, min_score=0.0)
    mean, std = (torch.tensor(x)[:, None, None] for x in (run.data.mean, run.data.std))
    with torch.no_grad():
        outputs = run.network((pixels / 255 - mean) / std)
    if run.data.task == "classification":
        expected = sorted(round(x, 4) for x in outputs.softmax(1).max(1).values.tolist())
        actual = sorted(round(p.classes[0].score, 4) for p in predictions)
        assert actual == pytest.approx(expected, abs=2e-4)
    elif run.data.task == "segmentation":
        masks = torch.nn.functional.interpolate(outputs, (64, 64), mode="bilinear").argmax(1)
        expected = sorted(masks.flatten(1).sum(1).tolist())
        actual = sorted(int(p.input_mask.sum()) for p in predictions)
        assert actual == pytest.approx(expected, abs=2)
    else:
        expected = sorted(len(d.scores) for d in outputs.detections((64, 64)))
        assert sorted(len(p.boxes) for p in predictions) == expected


def test_boxes_and_masks_are_in_the_picture(trained):
    run, folder = trained
    for prediction in run.predict(folder, min_score=0.0):
        with Image.open(prediction.path) as picture:
            width, height = picture.size
        assert prediction.placement.size == (height, width)
        for box in prediction.boxes:
            assert 0 <= box.x1 <= box.x2 <= width
            assert 0 <= box.y1 <= box.y2 <= height
        if run.data.task == "segmentation":
            assert prediction.mask.shape == (height, width)
            assert sum(share for _, share in prediction.classes) == pytest.approx(1)


def test_what_is_saved(trained, tmp_path):
    run, folder = trained
    predictions = selfdistill.predict(run, folder, min_score=0.0, save=tmp_path / "made")
    names = {file.name for file in (tmp_path / "made").iterdir()}
    drawn = run.data.task != "classification"
    masks = run.data.task == "segmentation"
    expected = {"predictions.csv"}
    expected |= {f"{i}.png" for i in range(16) if drawn}
    expected |= {f"{i}-mask.png" for i in range(16) if masks}
    assert names == expected
    rows = list(csv.DictReader(io.StringIO((tmp_path / "made/predictions.csv").read_text())))
    assert len(rows) == sum(len(p.classes) + len(p.boxes) for p in predictions)
    if masks:
        with Image.open(tmp_path / "made" / f"{predictions[0].path.stem}-mask.png") as mask:
            assert np.array_equal(np.array(mask), predictions[0].mask)
    with pytest.raises(RunBusyError, match="exists already"):
        selfdistill.predict(run, folder, save=tmp_path / "made")


def test_json_of_every_task(trained):
    run, folder = trained
    document = json.loads(run.predict(folder, min_score=0.0).to_json())
    task = run.data.task
    assert list(document) == ["predictor", "task", "classes", "pictures", "unreadable"]
    assert (document["task"], document["classes"]) == (task, NAMES[task])
    kind, keys = {
        "classification": ("classes", ["class", "confidence"]),
        "segmentation": ("shares", ["class", "share"]),
        "detection": ("boxes", ["class", "score", "x1", "y1", "x2", "y2"]),
    }[task]
    for picture in document["pictures"]:
        assert list(picture) == ["picture", "width", "height", kind]
        scores = [row[keys[1]] for row in picture[kind]]
        assert scores == sorted(scores, reverse=True)
        assert all(list(row) == keys and row["class"] in NAMES[task] for row in picture[kind])


def test_gray_transparent_and_turned_pictures(classifier, tmp_path):
    run, folder = classifier
    with Image.open(folder / "red" / "1.png") as picture:
        picture.load()
    transparent, gray = picture.copy(), picture.convert("L")
    transparent.putalpha(255)
    transparent.save(tmp_path / "transparent.png")
    gray.save(tmp_path / "gray.png")
    gray.convert("RGB").save(tmp_path / "gray-rgb.png")
    turned, upright = Image.Exif(), picture.transpose(Image.Transpose.ROTATE_270)
    turned[0x0112] = 6  # is shown turned by a quarter
    picture.save(tmp_path / "turned.png", exif=turned)
    upright.save(tmp_path / "upright.png")
    picture.save(tmp_path / "plain.png")
    named = {p.path.stem: p for p in run.predict(tmp_path)}
    assert named["transparent"].classes == named["plain"].classes
    assert named["gray"].classes == named["gray-rgb"].classes
    shown = named["turned"].placement.size
    same = "upright" if shown == named["upright"].placement.size else "plain"  # as training reads
    assert named["turned"].classes == named[same].classes


def test_top_and_min_score(classifier):
    run, folder = classifier
    (one,) = run.predict([folder / "red" / "1.png"], top=1)
    assert len(one.classes) == 1
    with pytest.raises(ConfigError, match="top=0 must be 1 or more"):
        run.predict(folder, top=0)
    with pytest.raises(ConfigError, match="min_score=2 is no score"):
        run.predict(folder, min_score=2)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n cut"])
def test_broken_pictures_are_passed_over(classifier, tmp_path, content):
    run, folder = classifier
    shutil.copy(folder / "red" / "1.png", tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(content)
    predictions = run.predict([tmp_path])
    assert [p.path.name for p in predictions] == ["good.png"]
    ((path, reason),) = predictions.unreadable.items()
    assert path.name == "broken.png"
    assert "cannot read the image" in reason
    assert json.loads(predictions.to_json())["unreadable"][0]["picture"] == str(path)


def test_pictures_that_are_not_there(classifier, tmp_path):
    run, _ = classifier
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="there is no picture in"):
        run.predict(tmp_path)
    with pytest.raises(DataError, match="there is no picture and no folder"):
        run.predict(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="no picture is given"):
        run.predict([])


def test_a_picture_is_predicted_once(classifier):
    run, folder = classifier
    assert len(run.predict([folder, folder / "red", folder / "red" / "1.png"])) == 16


def test_what_is_no_network(classifier, tmp_path):
    run, folder = classifier
    weights = run.export(exit=1, format="safetensors", out=tmp_path / "weights").file
    with pytest.raises(ConfigError, match="holds weights and no network; give the run"):
        selfdistill.predict(weights, folder)
    with pytest.raises(ConfigError, match="there is no run and no exported network"):
        selfdistill.predict(tmp_path / "gone", folder)
    with pytest.raises(ConfigError, match="is neither a run nor an exported network"):
        selfdistill.predict(folder / "red" / "1.png", folder)
    with pytest.raises(ConfigError, match="there is no exit '9'"):
        run.predict(folder, exit=9)
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="cannot be read as onnx"):
        selfdistill.predict(tmp_path / "broken.onnx", folder)
    write_onnx(torch.nn.Conv2d(3, 2, 1).eval(), torch.zeros(2, 3, 4, 4), tmp_path / "other.onnx")
    with pytest.raises(ConfigError, match="does not tell its classes"):
        selfdistill.predict(tmp_path / "other.onnx", folder)
    with pytest.raises(ConfigError, match="exit and device are for runs"):
        selfdistill.predict(tmp_path / "other.onnx", folder, exit=1)


@pytest.mark.slow
def test_a_pt2_file(classifier, tmp_path):
    run, folder = classifier
    file = run.export(exit=1, format="pt2", out=tmp_path / "made").file
    for one, other in zip(run.predict(folder, exit=1), selfdistill.predict(file, folder),
                          strict=True):  # fmt: skip
        assert_same(one, other)
    (tmp_path / "broken.pt2").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="cannot be read as pt2"):
        selfdistill.predict(tmp_path / "broken.pt2", folder)


def test_no_drawing_is_overwritten_by_a_mask():
    names = ["x.jpg", "x-mask.jpg", "a/x.png", "x-2.jpg", "y-mask.jpg", "y.jpg"]
    stems = _stems([SimpleNamespace(path=Path(name)) for name in names])
    files = [*stems, *(f"{stem}-mask" for stem in stems)]
    assert len(set(files)) == 2 * len(names)
    assert stems[0] == "x"


def test_an_unfinished_run_has_no_automatic_exit(classifier):
    run, folder = classifier
    begun = replace(run, exits=[])
    with pytest.raises(ConfigError, match=r"this run is not finished: .*name the exit"):
        begun.predict(folder, exit="auto")
