import re
import shutil

import numpy as np
import pytest
import torch
from shard_files import CLASSES, encoded, samples, write_folder

from selfdistill.core import DataError
from selfdistill.data import load
from selfdistill.data.hugging_face import read_hugging_face
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.errors import MissingExtraError

datasets = pytest.importorskip("datasets")
parquet = pytest.importorskip("datasets.packaged_modules.parquet.parquet")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def table(rows, *, image="image", label="label", features=True):
    """A data set of names, bytes and labels."""
    columns = {
        image: [{"bytes": content, "path": f"{name}.png"} for name, content, _ in rows],
        label: [number for *_, number in rows],
    }
    kinds = {image: datasets.Image(), label: datasets.ClassLabel(names=list(CLASSES))}
    return datasets.Dataset.from_dict(columns, datasets.Features(kinds) if features else None)


TRAIN, TEST = samples(30), samples(6, seed=100)


def saved(path, form):
    """The same set in each of the forms."""
    parts = {"train": table(TRAIN), "validation": table(TEST)}
    if form == "disk":
        datasets.DatasetDict(parts).save_to_disk(path)
    else:
        path.mkdir()
        for part, rows in parts.items():
            for shard in range(2):
                rows.shard(2, shard, contiguous=True).to_parquet(
                    path / f"{part}-{shard:05}-of-00002.parquet"
                )
    return path


@pytest.mark.parametrize("form", ["disk", "parquet"])
def test_they_are_those_of_folders(tmp_path, form, monkeypatch):
    write_folder(tmp_path / "folder" / "train", TRAIN)
    write_folder(tmp_path / "folder" / "val", TEST)
    path = saved(tmp_path / "set", form)
    keys = {"val_fraction": 0.2, "max_train_images": 17, "image_size": 8}
    for memory in (2 << 30, 0):
        monkeypatch.setattr("selfdistill.data.class_folders._IN_MEMORY", memory)
        expected, data = (
            load(name, **keys) for name in (f"folder:{tmp_path}/folder", f"hf:{path}")
        )
        assert isinstance(data.train, InMemoryImages) == bool(memory)
        for part in ("train", "val", "test"):
            ours, theirs = getattr(data, part), getattr(expected, part)
            every = torch.arange(len(theirs))
            assert torch.equal(ours.fetch(every), theirs.fetch(every))
            assert torch.equal(ours.labels, theirs.labels)
        assert data.classes == list(CLASSES)
    streamed = data.train
    assert streamed.num_bytes(0) == len(streamed.read_bytes(0))
    assert next(iter(streamed.identities())).endswith(b"/%d" % streamed.num_bytes(0))


def test_plain_columns_and_one_part(tmp_path):
    columns = {"img": [encoded(i) for i in range(4)], "Label": [0, 1, 1, 0]}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "set")
    splits = read_hugging_face(str(tmp_path / "set"))
    assert (splits.train.labels.tolist(), splits.classes) == ([0, 1, 1, 0], ["0", "1"])
    assert splits.train.read_bytes(2) == encoded(2)
    assert splits.test is None


def test_labels_that_are_missing(tmp_path):
    parts = {
        "train": table([*TRAIN, ("x", encoded(1), -1), ("y", encoded(1), None)]),
        "test": table([("x", encoded(1), -1)]),
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    name = str(tmp_path / "set")
    splits = read_hugging_face(name)
    assert (len(splits.train), splits.test) == (30, None)
    assert splits.notes == (
        f"train images without a label in hf:{name} are left out: 2",
        f"test images without a label in hf:{name} are left out: 1",
    )
    assert len(read_hugging_face(name, labeled=False).train) == 32


def test_the_one_column_of_the_usual_name(tmp_path):
    whole = table(TRAIN).add_column("coarse", [0] * 30)
    whole = whole.cast_column("coarse", datasets.ClassLabel(names=["all"]))
    whole.save_to_disk(tmp_path / "set")
    assert read_hugging_face(str(tmp_path / "set")).classes == list(CLASSES)
    whole.rename_column("label", "fine").save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match="several columns of labels: fine, coarse; name the one"):
        read_hugging_face(str(tmp_path / "two"))


def two(**columns):
    return {"image": [encoded(0), encoded(1)], "label": [0, 1]} | columns


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (two(label=[0.0, 1.0]), "the column 'label' of .* holds float64; labels are integers"),
        (two(label=["ant", "bee"]), r"holds string; .* class_encode_column\('label'\)"),
        (two(label=[[0], [1]]), "the column 'label' of .* holds"),
        (two(label=[0, -2]), "has the label -2; labels count from 0"),
        (two(label=[0, 0]), "all training images in .* have one label"),
        (two(label=[0, 2]), "class 1 has no training image in"),
        ({"image": [encoded(0)], "kind": [0]}, "no column of labels among image, kind; rename_col"),
        ({"text": ["a"], "label": [0]}, "no column of images among text, label"),
        ({"a": [b"1"], "b": [b"2"], "label": [0]}, "several columns of images: a, b; name the one"),
    ],
)
def test_bad_columns(tmp_path, columns, message):
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        read_hugging_face(str(tmp_path / "set"))


def test_bad_pictures_are_named(tmp_path):
    rows = [*TRAIN, ("x", b"no picture", 0), ("y", encoded(3)[:80], 1)]
    table(rows).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"train, row 30 \(x.png\) \(of none of .*, row 31 \(y.png"):
        load(f"hf:{tmp_path}/set", val_fraction=0)
    columns = two(image=[{"bytes": None, "path": "gone.png"}, {"bytes": encoded(1), "path": None}])
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "gone")
    with pytest.raises(DataError, match=r"neither its bytes nor a file of it are there"):
        load(f"hf:{tmp_path}/gone", val_fraction=0)


def test_bad_files(tmp_path):
    (tmp_path / "train-0.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"cannot read hf:.* \(.*\); save or copy it anew"):
        read_hugging_face(str(tmp_path))
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot read hf:"):
        read_hugging_face(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no shard \(.parquet\) in .*hf:FOLDER"):
        read_hugging_face(f"{tmp_path}/empty")


def test_parts_of_other_names(tmp_path):
    parts = {"first": table(TRAIN), "second": table(TEST)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="are called first, second; call them train"):
        read_hugging_face(str(tmp_path / "set"))


def test_a_name_in_the_cache(tmp_path, cache):
    words = r"neither a folder me/Tiny-Set nor .*load_dataset\('me/Tiny-Set'\) fetches it"
    with pytest.raises(DataError, match=words):
        read_hugging_face("me/Tiny-Set")
    folder = saved(tmp_path / "set", "parquet")
    files = {"train": [str(file) for file in sorted(folder.glob("train-*.parquet"))]}
    keys = {"dataset_name": "tiny-set", "data_files": files, "hash": "abc"}
    parquet.Parquet(cache_dir=str(cache), **keys).download_and_prepare()
    place = (cache / "tiny-set").rename(cache / "me___tiny-set")  # as of a set of the hub
    train = read_hugging_face("me/Tiny-Set").train
    assert train.labels.tolist() == [label for *_, label in TRAIN]
    assert [train.read_bytes(i) for i in range(30)] == [content for _, content, _ in TRAIN]
    (configuration,) = (inner for inner in place.iterdir() if inner.is_dir())
    shutil.copytree(configuration, place / "other")
    with pytest.raises(DataError, match="in several forms"):
        read_hugging_face("me/Tiny-Set")


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=re.escape('pip install "selfdistill[hf]"')):
        read_hugging_face(str(tmp_path))


def test_reading_in_any_order_takes_no_copy(tmp_path):
    table(TRAIN).save_to_disk(tmp_path / "set")
    train = read_hugging_face(str(tmp_path / "set")).train
    order = torch.from_numpy(np.random.default_rng(0).permutation(30))
    taken = train.take(order)
    assert [taken.read_bytes(i) for i in range(30)] == [TRAIN[row][1] for row in order.tolist()]
    assert taken.path(0) == f"hf:{tmp_path}/set train, row {order[0]} ({TRAIN[order[0]][0]}.png)"


def test_names_and_sizes_are_known_without_reading_a_picture(tmp_path, monkeypatch):
    picture = tmp_path / "beside.png"
    picture.write_bytes(encoded(3))
    cells = [
        {"bytes": encoded(0), "path": "a/b.png"},
        {"bytes": encoded(1), "path": None},
        {"bytes": None, "path": str(picture)},
        {"bytes": None, "path": "gone.png"},
        {"bytes": b"", "path": "empty.png"},
    ]
    rows = {"image": cells, "label": [0, 1, 0, 1, 0]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    train = read_hugging_face(str(tmp_path / "set")).train
    monkeypatch.setattr("selfdistill.data.hugging_face.ImageColumn._cell", None)
    sizes = [len(encoded(0)), len(encoded(1)), len(encoded(3)), 0, 0]
    names = ["b.png", "", "beside.png", "gone.png", "empty.png"]
    assert [train.num_bytes(i) for i in range(5)] == sizes
    told = [f"{name}/{size}".encode() for name, size in zip(names, sizes, strict=True)]
    assert [*train.identities()] == told
    assert [*train.take(torch.tensor([4, 0])).identities()] == [told[4], told[0]]
    columns = {"img": [encoded(i) for i in range(2)], "label": [0, 1]}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "plain")
    plain = read_hugging_face(str(tmp_path / "plain")).train
    assert [*plain.identities()] == [b"/%d" % len(content) for content in columns["img"]]
