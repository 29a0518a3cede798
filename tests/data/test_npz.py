import io
import zipfile

import numpy as np
import pytest
import torch

from selfdistill.core import DataError
from selfdistill.data import load

GRAY = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
COLOR = np.stack([GRAY, GRAY // 2, 255 - GRAY], -1)
LABELS = np.arange(12) % 3
GOOD = {"train_images": GRAY, "train_labels": LABELS}


@pytest.fixture
def save(tmp_path):
    def to_file(**arrays):
        np.savez(tmp_path / "set.npz", **arrays)
        return f"npz:{tmp_path / 'set.npz'}"

    return to_file


def test_gray_with_a_column_of_labels_as_medmnist_has_it(save):
    name = save(train_images=GRAY, train_labels=LABELS[:, None].astype(np.uint8))
    data = load(name, val_fraction=0.25)
    assert data.train.shape == (1, 8, 8)
    assert (len(data.train), len(data.val), data.test) == (9, 3, None)
    assert data.classes == ["0", "1", "2"]
    assert not data.flip


def test_color_keeps_its_pixels_and_its_own_validation_part(save):
    test = {"test_images": COLOR[:4], "test_labels": LABELS[:4]}
    val = {"val_images": COLOR[:2], "val_labels": LABELS[:2]}
    names = np.array(["ant", "bee", "cow"])
    data = load(save(train_images=COLOR, train_labels=LABELS, class_names=names, **val, **test))
    assert (len(data.train), len(data.val), len(data.test)) == (12, 2, 4)
    assert data.classes == ["ant", "bee", "cow"]
    result = data.train.fetch(torch.arange(12)).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(result, COLOR)
    np.testing.assert_allclose(data.mean, COLOR.mean((0, 1, 2)) / 255, atol=1e-12)
    np.testing.assert_allclose(data.std, COLOR.std((0, 1, 2)) / 255, atol=1e-12)


def test_resized(save):
    assert load(save(**GOOD), image_size=5).train.shape == (1, 5, 5)


def but(**changed):
    return {**GOOD, **changed}


FAULTS = {
    "no array 'train_labels'": {"train_images": GRAY},
    "'trian_images' in .* is of no known part .did you mean 'train_images'": {
        "trian_images": GRAY,
        "train_labels": LABELS,
    },
    "train_images in .* is float64; it must be uint8": but(train_images=GRAY / 255),
    r"has the shape \(12, 64\)": but(train_images=GRAY.reshape(12, 64)),
    r"has the shape \(12, 2, 8, 4\)": but(train_images=GRAY.reshape(12, 2, 8, 4)),
    "there is no image in it": but(train_images=GRAY[:0], train_labels=LABELS[:0]),
    "train_labels in .* is float64; it must hold integers": but(train_labels=LABELS / 1),
    "has 2 numbers per image.*labels.argmax": but(train_labels=np.stack([LABELS, LABELS], 1)),
    r"for 12 images it must be \(12,\)": but(train_labels=LABELS[:5]),
    "has the label -1; labels count from 0": but(train_labels=LABELS - 1),
    "class 0 has no training image": but(train_labels=LABELS + 1),
    "class 1 has no training image": but(train_labels=LABELS * (2**40)),
    "have one label; two classes are the least": but(train_labels=LABELS * 0),
    "has the label 2; the 2 class_names allow 0 … 1": but(class_names=np.array(["a", "b"])),
    r"class 'd' \(label 3\) has no training image": but(class_names=np.array(list("abcd"))),
    "an array of Python objects": but(train_labels=np.array([None] * 12, dtype=object)),
    "test_images in .* are 4×8 with 1 channel but train_images are 8×8": but(
        test_images=GRAY[:, :4], test_labels=LABELS
    ),
    "val_labels in .* has the label 5; the training labels go from 0 to 2": but(
        val_images=GRAY, val_labels=LABELS + 3
    ),
    "has no array 'test_labels'": but(test_images=GRAY),
}


@pytest.mark.parametrize("message", FAULTS)
def test_fault(save, message):
    with pytest.raises(DataError, match=message) as fault:
        load(save(**FAULTS[message]))
    assert "\n" not in str(fault.value)


def test_missing_file(tmp_path):
    (tmp_path / "pathmnist.npz").touch()
    with pytest.raises(DataError, match=r"no file .*did you mean 'pathmnist.npz'"):
        load(f"npz:{tmp_path / 'pathmnits.npz'}")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"text"])
def test_not_an_archive(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot read"):
        load(f"npz:{tmp_path / 'x.npz'}")


def test_bare_array(tmp_path):
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, GRAY)
    with pytest.raises(DataError, match="one bare array"):
        load(f"npz:{tmp_path / 'x.npz'}")


def member(header: bytes, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + content


def plain(shape: str) -> bytes:
    return b"{'descr': '|u1', 'fortran_order': False, 'shape': " + shape.encode() + b"}\n"


@pytest.mark.parametrize(
    "content",
    [
        member(plain("(1000000, 1000, 1000, 3)"), b"x" * 100),
        member(plain("(-5, 8, 8)"), b"x" * 100),
        member(plain("(2, 8, 8)"), b"x" * 5000),
        member(b"(" * 60 + b"\n"),
        member(b"{'descr': " + b"[" * 5000 + b"\n"),
        member(plain("(2, 8, 8)"), b"x" * 128, version=b"\x09\x00"),
        member(b"__import__('os').abort()\n"),
        b"",
    ],
)
def test_a_header_that_claims_something_else(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("train_images.npy", content)
    with pytest.raises(DataError, match="cannot read") as error:
        load(f"npz:{tmp_path / 'x.npz'}")
    assert "\n" not in str(error.value)


def test_arrays_that_take_too_much_memory(tmp_path, monkeypatch):
    stream = io.BytesIO()
    np.save(stream, np.zeros((100, 100, 100), np.uint8))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", stream.getvalue())
    assert (tmp_path / "x.npz").stat().st_size < 10_000
    monkeypatch.setattr("selfdistill.data.npz._MAX_BYTES", 999_999)
    with pytest.raises(DataError, match="give the images as folder:PATH"):
        load(f"npz:{tmp_path / 'x.npz'}")
