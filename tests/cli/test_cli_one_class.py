"""Detection of one class, the commonest detector of all, from training to what follows."""

import csv
from pathlib import Path

import numpy as np
import pytest
from command import say
from PIL import Image


def one_class(path: Path, layout: str) -> Path:
    """Pictures with a bright square each, in one of two layouts."""
    draw = np.random.default_rng(0)
    for part, count in {"train": 8, "val": 4, "test": 4}.items():
        for folder in ("images", "labels"):
            (path / folder / part).mkdir(parents=True)
        for i in range(count):
            pixels = draw.integers(0, 90, (64, 64, 3), dtype=np.uint8)
            x, y = map(int, draw.integers(0, 40, 2))
            pixels[y : y + 20, x : x + 20] = 250
            Image.fromarray(pixels).save(path / "images" / part / f"{i}.png")
            line = f"0 {(x + 10) / 64} {(y + 10) / 64} {20 / 64} {20 / 64}"
            (path / "labels" / part / f"{i}.txt").write_text(line)
    if layout == "named":
        (path / "data.yaml").write_text("names: [square]\n")
    return path


@pytest.mark.parametrize("layout", ["named", pytest.param("numbered", marks=pytest.mark.slow)])
def test_one_class_is_trained_evaluated_and_reported(tmp_path, layout):
    data, run = one_class(tmp_path / "squares", layout), tmp_path / "run"
    settings = ("--epochs", 1, "--image-size", 64, "--batch-size", 4, "--method", "ce")
    trained = say("train", "--task", "detection", "--data", f"folder:{data}", *settings,
                  "--model", "yolov5/n", "--device", "cpu", "--out", run)  # fmt: skip
    assert trained.code == 0, trained.err
    with (run / "classes.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["boxes"] == "4"
    assert "Each class" in (run / "report.html").read_text()
    assert say("evaluate", run).code == 0
    measured = say("exits", run, "--batch-size", 1)
    assert measured.code == 0, measured.err
    again = say("train", "--resume", run)
    assert again.code == 0, again.err
