import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from selfdistill.core import ConfigError, DataError, ResourceError
from selfdistill.data import SOURCES, load, sources

DIGITS = Path(sources.__file__).with_name("digits.npz")


def test_digits_by_default():
    data = load("digits")
    assert (len(data.train), len(data.val), len(data.test)) == (1293, 144, 360)
    assert data.train.shape == (1, 8, 8)
    assert (data.crop_padding, data.flip, data.resized_crop) == (1, False, False)
    counts = torch.bincount(data.test.labels)
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_digits_are_those_of_sklearn():
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    with np.load(DIGITS) as stored:
        np.testing.assert_array_equal(stored["images"], digits.images)
        np.testing.assert_array_equal(stored["labels"], digits.target)


def test_digits_are_the_file_that_is_shipped():
    with np.load(DIGITS) as stored:
        content = stored["images"].tobytes() + stored["labels"].tobytes()
        expected = np.round(stored["images"] * (255 / 16)).astype(np.uint8)
    assert hashlib.sha256(content).hexdigest() == (
        "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    )
    data = load("digits")
    images = torch.cat([split.images for split in (data.train, data.val, data.test)])
    assert sorted(map(bytes, images.numpy())) == sorted(map(bytes, expected))


def test_the_split_never_changes():
    first, second = load("digits"), load("digits", max_train_images=100)
    assert torch.equal(first.val.images, second.val.images)
    assert torch.equal(first.test.images, second.test.images)
    assert torch.bincount(second.train.labels).tolist() == pytest.approx([10] * 10, abs=1)


def test_limit_beyond_the_set_and_size():
    data = load("digits", max_train_images=10_000, image_size=16, val_fraction=0)
    assert len(data.train) == 1437
    assert data.val is None
    assert data.test.shape == (1, 16, 16)
    assert data.crop_padding == 2


def test_resize_equals_pillow_within_rounding():
    from PIL import Image

    small, large = (load("digits", image_size=s).test.images[0, 0].numpy() for s in (None, 24))
    want = np.asarray(Image.fromarray(small).resize((24, 24), Image.Resampling.BILINEAR))
    assert np.abs(large.astype(int) - want).max() <= 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifra10", "did you mean 'cifar10'"),
        ("zzz", "there are: digits"),
        ("folder:", "did you mean 'folder:PATH'"),
    ],
)
def test_unknown_name(name, message):
    with pytest.raises(DataError, match=message):
        load(name)


def test_folder_without_its_prefix(tmp_path):
    with pytest.raises(DataError, match="did you mean 'folder:"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    "options",
    [{"val_fraction": 1}, {"val_fraction": -0.1}, {"max_train_images": 0}, {"image_size": 0}],
)
def test_option_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        load("digits", **options)


def fake(data, labels, key):
    """A class that stands for one of torchvision's."""

    class Fake:
        def __init__(self, root, *, download, train=None, split=None):
            assert download
            assert split in (None, "train", "test")
            first = train if split is None else split == "train"
            self.data = data if first else data[:10]
            setattr(self, key, labels if first else labels[:10])

    return Fake


RNG = np.random.default_rng(0)
LABELS = np.arange(40) % 4
LAYOUTS = {
    "cifar10": (
        "CIFAR10",
        RNG.integers(0, 256, (40, 32, 32, 3), np.uint8),
        list(LABELS),
        "targets",
    ),
    "cifar100": (
        "CIFAR100",
        RNG.integers(0, 256, (40, 32, 32, 3), np.uint8),
        list(LABELS),
        "targets",
    ),
    "mnist": (
        "MNIST",
        torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8),
        torch.tensor(LABELS),
        "targets",
    ),
    "fashion_mnist": (
        "FashionMNIST",
        torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8),
        torch.tensor(LABELS),
        "targets",
    ),
    "svhn": ("SVHN", RNG.integers(0, 256, (40, 3, 32, 32), np.uint8), LABELS, "labels"),
    "stl10": ("STL10", RNG.integers(0, 256, (40, 3, 96, 96), np.uint8), LABELS, "labels"),
}


def test_every_named_source_is_tested():
    paths = {"folder:PATH", "csv:FILE", "npz:FILE", "wds:SHARDS", "hf:SET"}
    assert {*LAYOUTS, "digits", *paths} == set(SOURCES["classification"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_download(name, tmp_path, monkeypatch):
    reader, pixels, labels, key = LAYOUTS[name]
    monkeypatch.setattr(torchvision.datasets, reader, fake(pixels, labels, key))
    data = load(name, root=tmp_path, val_fraction=0.1)
    assert (len(data.train), len(data.val), len(data.test)) == (36, 4, 10)
    channels, height, width = data.train.shape
    assert (channels, height) == (1 if "mnist" in name else 3, width)
    assert data.crop_padding == height // 8
    assert data.flip == (name not in ("mnist", "svhn"))
    assert len(data.mean) == len(data.std) == channels
    result = data.test.fetch(torch.arange(10)).numpy()
    array = np.asarray(pixels)[:10]
    want = array.reshape(result.shape) if array.shape[-1] != 3 else array.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(result, want)


def test_published_moments(tmp_path, monkeypatch):
    reader, pixels, labels, key = LAYOUTS["cifar100"]
    monkeypatch.setattr(torchvision.datasets, reader, fake(pixels, labels, key))
    data = load("cifar100", root=tmp_path)
    assert data.mean == (0.5071, 0.4867, 0.4408)
    assert data.std == (0.2675, 0.2565, 0.2761)


@pytest.mark.parametrize("fault", [OSError("<urlopen error>"), RuntimeError("corrupted\nfile")])
def test_failed_download(fault, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise fault

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(ResourceError, match=r"place the files .* or give the images") as result:
        load("cifar10", root=tmp_path / "new")
    assert "\n" not in str(result.value)
