"""The page of a run that is evaluated by another score than accuracy."""

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from made_run import made_run, measure, on_another_task, training_data
from PIL import Image
from test_run_page import read
from torch import nn

from selfdistill.core import IGNORE, ArtifactError
from selfdistill.data import ImageData, InMemoryImages
from selfdistill.data.targets import Labels, Masks
from selfdistill.engine.evaluate import EvaluationResult
from selfdistill.engine.run_directory import RunDirectory
from selfdistill.recipe.build_method import build_method
from selfdistill.records.mistakes import read_mistakes
from selfdistill.reporting.run_page import write_report
from selfdistill.reporting.sample_images import write_mistakes, write_pictures
from selfdistill.tasks import Classification, Segmentation

SCENES = ("sky", "road", "a & b")


@pytest.fixture
def scenes(tmp_path):
    """A run on masks, whose confusion counts pixels."""
    run = made_run(tmp_path / "run", classes=SCENES, images=40_000)
    run = on_another_task(run, "segmentation", "miou", SCENES, ("iou", "accuracy", "pixels"))
    lines = run.metrics()
    confusion = np.loadtxt(run.path / "confusion.csv", delimiter=",", skiprows=1)
    lines[-1]["test"]["student"]["accuracy"] = np.trace(confusion) / confusion.sum()
    run.metrics_file.unlink()
    for line in lines:
        run.log(line)
    return run


def test_a_run_on_masks_speaks_of_its_score(scenes):
    _, page = read(scenes)
    assert page.titles["h2"][:2] == ["mIoU and cost of every exit", "mIoU, and what depth buys"]
    assert "Each class" in page.titles["h2"]
    assert "Validation mIoU over epochs" in page.titles["h3"]
    assert "mIoU against cost" in page.titles["h3"]
    assert "reaches 97.8 % mIoU on the test images of" in page.text
    assert "Student, test mIoU" in page.text
    assert "front is that of the validation mIoU." in page.text
    for words in ("test mIoU", "test accuracy", "test top5"):
        assert words in page.text
    for claim in ("is known to about", "more accurate", "right;", "Accuracy"):
        assert claim not in page.text


def test_confusion_of_masks_counts_pixels(scenes):
    text, page = read(scenes)
    assert "The student on 40 000 pixels of the test images." in page.text
    assert "Numbers are percent of the row." in page.text
    confusion = text[text.index("<h2>Confusion") :]
    assert '<th scope="col" class="number">pixels</th>' in confusion


def test_each_class_has_a_row_and_nothing_to_evaluate_is_a_dash(scenes):
    text, page = read(scenes)
    assert "a & b – – 0" in page.text
    assert "sky 25.0 % 25.0 % 1 000" in page.text
    assert "class IoU accuracy pixels" in page.text
    assert "a & b" not in text


def test_eighty_classes_stand_in_two_columns(tmp_path):
    names = [f"class {i}" for i in range(80)]
    run = made_run(tmp_path / "run", classes=names)
    (run.path / "confusion.csv").unlink()
    text, page = read(on_another_task(run, "segmentation", "miou", names, ("iou", "pixels")))
    part = text[text.index("<h2>Each class") : text.index("<h2>Recipe")]
    assert part.count("<table>") == 2
    assert part.count("<tr>") == 82
    assert "class 79 – 0" in page.text


def test_what_was_measured_of_it(scenes):
    measure(scenes)
    table = (scenes.path / "exits-measured.csv").read_text()
    scenes.write("exits-measured.csv", table.replace("_accuracy", "_miou"))
    assert "mIoU against time" in read(scenes)[1].titles["h3"]


def test_a_task_that_this_version_does_not_know(tmp_path):
    run = made_run(tmp_path / "run")
    run.write("data.json", training_data("telepathy", "ab").to_json())
    with pytest.raises(ArtifactError, match="task 'telepathy', which this version does not know"):
        write_report(run)


def pairs(count, channels=3, side=16):
    """Images in two halves, and their masks."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=draw)
    masks = torch.zeros(count, side, side, dtype=torch.uint8)
    masks[:, side // 2 :], masks[:, 0] = 1, IGNORE
    return InMemoryImages(pixels, Masks(masks))


def drawn(place, images, task=None):
    """The files that a student with random weights leaves."""
    channels = images.shape[0]
    task = task or Segmentation(SCENES, torch.zeros(2, *images.shape))
    network = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    if task.image_labels:
        network = nn.Sequential(*network, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    gray = (0.5,) * channels
    data = ImageData("x", images, images, None, list(SCENES), gray, gray, 0, False, False)
    method = build_method("ce", network, task)
    run = RunDirectory(place)
    write_pictures(run, Fabric(accelerator="cpu", devices=1), method, task, images, data)
    return sorted(file.name for file in (place / "pictures").glob("*"))


def test_pictures_are_spread_over_the_images_and_on_the_page(scenes):
    files = drawn(scenes.path, pairs(30))
    assert files == [f"{n:03}.png" for n in (0, 4, 8, 12, 17, 21, 25, 29)]
    text, page = read(scenes)
    assert page.titles["h2"][1] == "What the network sees"
    assert page.loads.count(page.loads[0]) == 1
    assert sum(address.startswith("data:image/jpeg") for address in page.loads) == 8
    assert '<i class="swatch square" style="background:rgb(230, 25, 75)"></i>road' in text
    assert "a & b" in page.text
    assert "on the left the truth" in page.text


def test_pictures_of_an_older_end_do_not_stay(tmp_path):
    drawn(tmp_path, pairs(30))
    assert drawn(tmp_path, pairs(3)) == ["000.png", "001.png", "002.png"]


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_small_and_gray_images_are_seen_large_and_in_color(tmp_path, channels):
    (name,) = drawn(tmp_path, pairs(1, channels))
    with Image.open(tmp_path / "pictures" / name) as picture:
        assert (picture.mode, picture.size) == ("RGB", (12 * (2 * 16 + 4), 12 * 16))


def test_a_task_without_pictures_draws_none(tmp_path):
    images = InMemoryImages(
        torch.zeros(4, 3, 16, 16, dtype=torch.uint8), Labels(torch.arange(4) % 3)
    )
    assert drawn(tmp_path, images, Classification(SCENES, torch.zeros(2, 3, 16, 16))) == []
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize(("names", "shown"), [("012", "class 2"), (("0", "1", "two"), ">two<")])
def test_classes_without_names_are_called_classes(scenes, names, shown):
    drawn(scenes.path, pairs(3))
    scenes.write("data.json", training_data("segmentation", names).to_json())
    text, _ = read(scenes)
    legend = text[text.index('<ul class="legend">') :].partition("</ul>")[0]
    assert shown in legend
    assert ("class 0" in legend) == (names == "012")


def test_surest_mistakes_of_a_classifier(tmp_path):
    run = made_run(tmp_path / "run", classes=("cat", "a & b"))
    drawing = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=drawing)
    images = InMemoryImages(pixels, torch.zeros(40, dtype=torch.int64))
    confidence = torch.linspace(0.5, 1, 40)
    predicted = (torch.arange(40) % 2).long()  # odd images are wrong
    result = EvaluationResult({}, {}, {}, {}, {}, confidence, predicted)
    write_mistakes(run, result, images, ["cat", "a & b"])
    mistakes = read_mistakes(run.path)
    assert [m.image for m in mistakes] == [39, 37, 35, 33, 31, 29, 27, 25, 23, 21, 19, 17]
    assert (mistakes[0].label, mistakes[0].prediction, mistakes[0].confidence) == (
        "cat", "a & b", 1.0,
    )  # fmt: skip
    with Image.open(run.path / "pictures" / "039.png") as picture:
        assert picture.getpixel((0, 0)) == (int(pixels[39, 0, 0, 0]),) * 3
    text, page = read(run)
    assert "Surest mistakes" in page.titles["h2"]
    assert "What the network sees" not in page.titles["h2"]
    assert "a & b 100.0 % labeled cat" in page.text
    assert text.count("data:image/jpeg") == 12
    all_right = result._replace(predicted=torch.zeros(40, dtype=torch.int64))
    write_mistakes(run, all_right, images, ["cat", "a & b"])
    assert not list((run.path / "pictures").iterdir())
    assert "Surest mistakes" not in read(run)[1].titles["h2"]


@pytest.mark.parametrize("text", ["image\n3\n", "", "image,label,prediction,confidence\nx,a,b,1\n"])
def test_a_broken_table_of_mistakes_is_named(tmp_path, text):
    run = made_run(tmp_path / "run")
    run.write("mistakes.csv", text)
    with pytest.raises(ArtifactError, match=r"mistakes\.csv is no table of mistakes"):
        write_report(run)


def test_a_broken_picture_is_named(scenes):
    (scenes.path / "pictures").mkdir()
    scenes.write("pictures/000.png", b"no picture")
    with pytest.raises(ArtifactError, match=r"000\.png is no picture"):
        write_report(scenes)


def test_a_run_on_boxes_has_neither_confusion_nor_calibration(tmp_path):
    run = made_run(tmp_path / "run")
    (run.path / "confusion.csv").unlink()
    on_another_task(run, "detection", "map", ("cat", "dog"), ("ap", "boxes"))
    (run.path / "pictures").mkdir()
    Image.new("RGB", (2400, 600)).save(run.path / "pictures" / "007.png")
    text, page = read(run)
    assert page.titles["h2"][:3] == [
        "mAP and cost of every exit",
        "What the network sees",
        "mAP, and what depth buys",
    ]
    assert "class AP boxes cat 25.0 % 1 000 dog – 0" in page.text
    assert "reaches 97.8 % mAP on the test images of" in page.text
    assert 'alt="test image 007: truth and answer"' in text
    assert "cat" in page.text.partition("student's answer.")[2]
    assert {"Calibration", "Confusion"}.isdisjoint(page.titles["h2"])
