"""Detectors trained on mosaics: a stopped run goes on exactly, with any number of workers."""

import numpy as np
import pytest
import torch
from PIL import Image
from saved_tensors import saved_tensors

import selfdistill
from selfdistill.core import ConfigError
from selfdistill.engine.callback import Callback
from selfdistill.engine.run_directory import RunDirectory

KEYS = {
    "task": "detection", "model": "yolov5/n", "method": "ce", "image_size": 32, "epochs": 3,
    "batch_size": 4, "val_fraction": 0.0, "device": "cpu", "save_every_steps": 1, "quiet": True,
    "mosaic_probability": 0.8, "mosaic_fraction": 0.67, "scale_jitter": 0.5, "shift": 0.1,
    "hsv_jitter": (0.015, 0.7, 0.4),
}  # fmt: skip


class Stop(Callback):
    """Ends a run behind a step."""

    class Stopped(BaseException):
        pass

    def __init__(self, step):
        self.step = step

    def on_step(self, step, total_steps):
        if step == self.step:
            raise self.Stopped


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine pictures of unequal sizes with up to two objects, in the layout of YOLO."""
    place, draw = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    for part in ("images", "labels"):
        (place / part).mkdir()
    for number in range(9):
        size = (24 + number, 40 - number, 3)
        pixels = draw.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(place / "images" / f"{number}.png")
        rows = [f"{k} 0.5 0.5 0.4 0.{3 + k}" for k in range(number % 3)]
        (place / "labels" / f"{number}.txt").write_text("\n".join(rows))
    return place


def train(folder, out, **keys):
    return selfdistill.train(data=f"folder:{folder}", out=out, **{**KEYS, **keys}).path


@pytest.mark.parametrize("stop", [3])
def test_goes_on_to_the_very_weights(folder, tmp_path, monkeypatch, stop):
    straight = saved_tensors(train(folder, tmp_path / "straight"))
    monkeypatch.setattr("selfdistill.data.box_folders._IN_MEMORY", 0)
    with pytest.raises(Stop.Stopped):
        train(folder, tmp_path / "stopped", num_workers=2, quiet=False, callback=Stop(stop))
    selfdistill.train(out=tmp_path / "stopped", resume=True, quiet=True)
    resumed = saved_tensors(tmp_path / "stopped")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in straight.items())
    other = saved_tensors(
        train(folder, tmp_path / "plain", mosaic_probability=0.0, mosaic_fraction=1.0)
    )
    assert any(not torch.equal(tensor, other[key]) for key, tensor in straight.items())
    steps = [e for e in RunDirectory(tmp_path / "stopped").metrics() if e["kind"] == "step"]
    assert all(np.isfinite(step["loss"]) for step in steps if "loss" in step)


def test_labels_are_refused(tmp_path):
    keys = {"data": "digits", "method": "ce", "mosaic_probability": 1.0, "max_train_images": 96}
    with pytest.raises(ConfigError, match="--mosaic-probability is for images with boxes or masks"):
        selfdistill.train(**keys, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
