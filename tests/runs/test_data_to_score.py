"""Other data than a run's: in the size of its images, all of them, and with a test part alone."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import selfdistill
from selfdistill.cli import app
from selfdistill.core import DataError
from selfdistill.runs.networks import networks_under_test

OPTIONS = {"epochs": 1, "batch_size": 8, "device": "cpu", "method": "ce", "quiet": True}
NAMES = ("blue", "red")


def pictures(place: Path, count: int, height: int, width: int, seed: int = 0) -> Path:
    """Class folders."""
    draw = np.random.default_rng(seed)
    for number in range(count):
        folder = place / NAMES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 200, (height, width, 3), dtype=np.uint8)
        pixels[..., 2 if number % 2 == 0 else 0] = 255
        Image.fromarray(pixels).save(folder / f"{seed}-{number}.png")
    return place


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(run, its data) of pictures that are no squares."""
    place = tmp_path_factory.mktemp("rect")
    data = pictures(place / "set", 24, 36, 24)
    run = selfdistill.train(
        data=f"folder:{data}", model="cifar/resnet8", out=place / "run", **OPTIONS
    )
    return run, data


@pytest.fixture
def seen(monkeypatch):
    """The shapes of the images that the network of a run is shown."""
    shapes = set()

    def watch(run):
        run.network.register_forward_pre_hook(lambda _, x: shapes.add(tuple(x[0].shape[1:])))
        return shapes

    return watch


def test_other_pictures_are_brought_to_the_runs_height_and_width(trained, seen, tmp_path):
    run = selfdistill.load(trained[0].path)
    shapes = seen(run)
    larger = pictures(tmp_path / "larger", 10, 144, 96)
    evaluation = run.evaluate(data=f"folder:{larger}")
    assert shapes == {(3, 36, 24)}
    assert evaluation.exits[-1].macs == run.exits[-1].macs


def test_information_is_of_pictures_of_the_runs_height_and_width(trained, tmp_path):
    larger = pictures(tmp_path / "larger", 10, 144, 96)
    _, images = networks_under_test([str(trained[0].path)], data=f"folder:{larger}")
    assert images.train.shape == (3, 36, 24)


def test_all_of_other_pictures_are_scored_and_of_the_own_the_held_out(trained, tmp_path):
    run, data = trained
    other = pictures(tmp_path / "other", 30, 36, 24, seed=1)
    found = run.evaluate(data=f"folder:{other}")
    assert (found.split, found.num_images) == ("test", 30)
    held_out = run.evaluate().num_images
    assert run.evaluate(data=f"folder:{data}").num_images == held_out < 24
    assert run.evaluate(data=f"folder:{data}/../set/").num_images == held_out
    assert run.evaluate("val", data=f"folder:{other}").num_images == 30


@pytest.mark.parametrize("part", ["test", "val", "Testing"])
def test_a_held_out_part_alone_is_scored(trained, part, tmp_path):
    run, _ = trained
    pictures(tmp_path / "other" / part, 12, 36, 24, seed=2)
    assert run.evaluate(data=f"folder:{tmp_path / 'other'}").num_images == 12
    with pytest.raises(DataError, match="no training part beside; call that train"):
        selfdistill.train(
            data=f"folder:{tmp_path / 'other'}", model="cifar/resnet8", out=tmp_path / "r",
            **OPTIONS,
        )  # fmt: skip


def test_of_several_parts_the_test_part_is_scored(trained, tmp_path):
    run, _ = trained
    for part, count in (("test", 6), ("val", 10)):
        pictures(tmp_path / "other" / part, count, 36, 24, seed=count)
    assert run.evaluate(data=f"folder:{tmp_path / 'other'}").num_images == 6
    pictures(tmp_path / "other" / "train", 14, 36, 24, seed=3)
    assert run.evaluate(data=f"folder:{tmp_path / 'other'}").num_images == 6
    assert run.evaluate("val", data=f"folder:{tmp_path / 'other'}").num_images == 10


@pytest.mark.parametrize("form", ["a file of the part", "a column of parts"])
def test_a_table_of_a_held_out_part_is_scored(trained, form, tmp_path):
    run, _ = trained
    folder = pictures(tmp_path / "other", 8, 36, 24, seed=4)
    rows = [[f"{p.parent.name}/{p.name}", p.parent.name] for p in sorted(folder.rglob("*.png"))]
    named = form == "a file of the part"
    table = folder / ("test_labels.csv" if named else "labels.csv")
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", *([] if named else ["split"])])
        writer.writerows([*row, *([] if named else ["test"])] for row in rows)
    assert run.evaluate(data=f"csv:{table}").num_images == 8


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_scenes_of_a_test_part_alone(task, tmp_path):
    def scenes(place, count, height, width):
        draw = np.random.default_rng(count)
        for name in ("images", "masks" if task == "segmentation" else "labels"):
            (place / name).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / "images" / f"{number}.png")
            if task == "segmentation":
                mask = (np.arange(width) > width // 2) * np.ones((height, 1))
                Image.fromarray(mask.astype(np.uint8)).save(place / "masks" / f"{number}.png")
            else:
                lines = "0 0.5 0.5 0.5 0.4\n" + "1 0.3 0.3 0.2 0.2\n"
                (place / "labels" / f"{number}.txt").write_text(lines)

    for place, count, size in (("own", 12, (64, 96)), ("other/test", 5, (128, 192))):
        scenes(tmp_path / place, count, *size)
    for place in ("own", "other"):
        (tmp_path / place / "classes.txt").write_text("dark\nlight")
    run = selfdistill.train(
        task=task, data=f"folder:{tmp_path / 'own'}", out=tmp_path / "run",
        model="fpn/small" if task == "segmentation" else "yolov5/n", **OPTIONS,
    )  # fmt: skip
    found = run.evaluate(data=f"folder:{tmp_path / 'other'}")
    assert (found.split, found.num_images) == ("test", 5)
    assert found.exits[-1].macs == run.exits[-1].macs


def test_an_export_is_scored_by_all_of_other_pictures(trained, tmp_path):
    run, data = trained
    file = run.export(exit="student", format="pt2", out=tmp_path / "made").file
    other = pictures(tmp_path / "other", 10, 72, 48, seed=5)
    found = selfdistill.measure(file, data=f"folder:{other}", batch_sizes=[1])
    assert (found.split, found.images) == ("test", 10)
    assert found.score == pytest.approx(run.evaluate(data=f"folder:{other}").exits[-1].test_score)
    own = selfdistill.measure(file, data=f"folder:{data}", batch_sizes=[1])
    assert own.images == run.evaluate().num_images
    shutil.rmtree(tmp_path / "made")


def test_the_runs_own_data_may_be_gone(tmp_path):
    data = pictures(tmp_path / "set", 24, 24, 24)
    other = pictures(tmp_path / "other", 10, 24, 24, seed=6)
    run = selfdistill.train(
        data=f"folder:{data}", model="cifar/resnet8", out=tmp_path / "run", **OPTIONS
    )
    shutil.rmtree(data)
    result = CliRunner().invoke(app, ["evaluate", str(run.path), "--data", f"folder:{other}"])
    assert result.exit_code == 0, result.output
    assert "test · 10 images" in result.output
    torch.testing.assert_close(run.evaluate(data=f"folder:{other}").num_images, 10)
