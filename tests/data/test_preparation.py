"""A picture is prepared as the data of its run were, and what is seen in it is led back."""

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.core import ConfigError, DataError
from selfdistill.data import load
from selfdistill.data.listing import Listing
from selfdistill.data.preparation import Placement, Preparation, preparation_of

DRAW = np.random.default_rng(0)


def save(path, height, width, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    Image.fromarray(DRAW.integers(0, 256, shape, dtype=np.uint8), mode).save(path)


def class_folders(place, sizes):
    for label in "ab":
        for i, size in enumerate(sizes):
            save(place / label / f"{i}.png", *size)
    return {"name": f"folder:{place}", "val_fraction": 0}


def mask_folder(place):
    for i, size in enumerate([(40, 30), (20, 50)]):
        save(place / "images" / f"{i}.png", *size)
        (place / "masks").mkdir(exist_ok=True)
        mask = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size) % 2
        Image.fromarray(mask).save(place / "masks" / f"{i}.png")
    return {"name": f"folder:{place}", "task": "segmentation", "val_fraction": 0}


def yolo_folder(place):
    for i, size in enumerate([(40, 30), (20, 50)]):
        save(place / "images" / f"{i}.png", *size)
        (place / "labels").mkdir(exist_ok=True)
        (place / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.4 0.2\n")
    (place / "classes.txt").write_text("ant\n")
    return {"name": f"folder:{place}", "task": "detection", "val_fraction": 0}


SETS = {
    "of one size": lambda place: class_folders(place, [(20, 30), (20, 30)]),
    "of many sizes": lambda place: class_folders(place, [(20, 30), (41, 16), (9, 80)]),
    "scenes": mask_folder,
    "boxes": yolo_folder,
}


@pytest.mark.parametrize("size", [None, 24])
@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("streamed", [False, True])
def test_pixels_are_those_of_training(tmp_path, monkeypatch, kind, size, streamed):
    if streamed:
        for module in ("class_folders", "box_folders"):
            monkeypatch.setattr(f"selfdistill.data.{module}._IN_MEMORY", 0)
    data = load(**SETS[kind](tmp_path / "set"), image_size=size)
    folder = tmp_path / "set" / "images" if kind in ("scenes", "boxes") else tmp_path / "set"
    paths = [*Listing().class_images([folder])[0]]
    assert len(paths) == len(data.train)
    preparation = preparation_of(data)
    prepared = torch.stack([preparation.read(path).pixels for path in paths])
    assert torch.equal(prepared, data.train.fetch(torch.arange(len(paths))))


def test_arrays_of_another_size_are_stretched(tmp_path):
    pixels = DRAW.integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
    arrays = {"train_images": pixels, "train_labels": np.arange(4) % 2}
    np.savez(tmp_path / "set.npz", **arrays)
    data = load(f"npz:{tmp_path / 'set.npz'}", val_fraction=0, image_size=16)
    Image.fromarray(pixels[1]).save(tmp_path / "1.png")
    prepared = preparation_of(data).read(tmp_path / "1.png").pixels
    difference = (prepared.int() - data.train.fetch(torch.tensor([1]))[0].int()).abs()
    assert difference.max() <= 1  # two libraries round


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_mode(tmp_path, mode, channels):
    Image.new(mode, (8, 6), "white").save(tmp_path / "x.png")
    pixels = Preparation((channels, 12, 12), "stretch").read(tmp_path / "x.png").pixels
    assert pixels.shape == (channels, 12, 12)
    assert (pixels == 255).all()


def test_gray_pixels_stay_as_they_are(tmp_path):
    gray = DRAW.integers(0, 256, (6, 8), dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "x.png")
    pixels = Preparation((1, 6, 8), "stretch").read(tmp_path / "x.png").pixels
    assert np.array_equal(pixels[0].numpy(), gray)


@pytest.mark.parametrize("fit", ["letterbox", "stretch", "crop"])
def test_a_box_comes_back_to_its_place(tmp_path, fit):
    """A white rectangle is looked up in the input, and led back to the picture."""
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[40:80, 70:130] = 255
    Image.fromarray(picture).save(tmp_path / "x.png")
    pixels, placement = Preparation((3, 96, 96), fit).read(tmp_path / "x.png")
    y, x = (pixels[0] > 200).nonzero().unbind(1)
    seen = torch.tensor([[x.min(), y.min(), x.max() + 1, y.max() + 1]]).float()
    box = placement.boxes_in_picture(seen)
    assert box[0].tolist() == pytest.approx([70, 40, 130, 80], abs=2.5)


def test_boxes_end_at_the_picture_s_edge():
    placement = Placement((20, 40), (8, 0, 16, 32))  # in a square of 32
    boxes = placement.boxes_in_picture(torch.tensor([[-5.0, 0, 40, 40], [16, 16, 24, 24]]))
    assert boxes.tolist() == [[0, 0, 40, 20], [20, 10, 30, 20]]


@pytest.mark.parametrize("fit", ["letterbox", "stretch", "crop"])
def test_a_mask_comes_back_to_its_place(tmp_path, fit):
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[:, 40:60] = 255
    Image.fromarray(picture).save(tmp_path / "x.png")
    pixels, placement = Preparation((3, 96, 96), fit).read(tmp_path / "x.png")
    mask = placement.mask_in_picture((pixels[0] > 127).to(torch.uint8)).numpy()
    assert mask.shape == (60, 100)
    inside = mask != 255
    assert inside.all() == (fit != "crop")
    assert inside[:, 25:75].all()
    assert (mask == (picture[..., 0] > 0))[inside].mean() > 0.97


def test_what_cannot_be_read_is_told(tmp_path):
    preparation = Preparation((3, 8, 8), "crop")
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cannot read the image .*x\.png"):
        preparation.read(tmp_path / "x.png")
    with pytest.raises(ConfigError, match="images of 4 channels, and a picture has 1 or 3"):
        Preparation((4, 8, 8), "crop").read(tmp_path / "x.png")


@pytest.mark.parametrize("fit", ["letterbox", "stretch", "crop"])
def test_the_record_comes_back(fit):
    preparation = Preparation((3, 8, 9), fit, 1.25)
    fields = {"shape": [3, 8, 9], "fit": fit, "resize_ratio": 1.25}
    assert Preparation.from_fields(fields) == preparation
    for key in fields:
        with pytest.raises((ValueError, LookupError, TypeError)):
            Preparation.from_fields({**fields, key: "other"})
