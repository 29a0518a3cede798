import gzip
import json
import os
import re
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shard_files import CLASSES, encoded, samples, write_folder, write_shards, write_tar

from selfdistill.core import DataError, ResourceError
from selfdistill.data import Loader, load, shard_index
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.data.shard_index import indexed
from selfdistill.data.shards import find_shards, read_shards
from selfdistill.recipe.data_check import describe_data, image_difference


@pytest.fixture
def both(tmp_path):
    """The same pictures in class folders and in shards: 30 for training and 6 for testing."""
    folder, shards = tmp_path / "folder", tmp_path / "shards"
    train, test = samples(30), samples(6, seed=100)
    write_folder(folder / "train", train)
    write_folder(folder / "test", test)
    write_shards(shards, train)
    write_shards(shards, test, 2, stem="test")
    (shards / "classes.txt").write_text("\n".join(CLASSES))
    return folder, shards


def loaded(path, kind="wds", **keys):
    return load(f"{kind}:{path}", root=path.parent / "cache", **keys)


def test_in_memory_they_are_those_of_folders(both):
    folder, shards = (
        loaded(path, kind, val_fraction=0.2, max_train_images=17)
        for path, kind in zip(both, ("folder", "wds"), strict=True)
    )
    for part in ("train", "val", "test"):
        expected, images = getattr(folder, part), getattr(shards, part)
        assert isinstance(images, InMemoryImages)
        assert torch.equal(images.images, expected.images)
        assert torch.equal(images.labels, expected.labels)
    assert shards.classes == list(CLASSES)
    assert (shards.mean, shards.std, shards.flip) == (folder.mean, folder.std, folder.flip)


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_those_of_folders(both, monkeypatch, workers):
    monkeypatch.setattr("selfdistill.data.class_folders._IN_MEMORY", 0)
    streams = []
    for path, kind in zip(both, ("folder", "wds"), strict=True):
        data = loaded(path, kind, val_fraction=0.2, image_size=8)
        loader = Loader(
            data.train, batch_size=7, seed=3, mean=data.mean, std=data.std, workers=workers,
            crop_padding=0, resized_crop=True, flip=True,
        )  # fmt: skip
        streams.append(
            [batch for epoch in (0, 1) for step in loader.epoch(epoch) for batch in step]
        )
    folder, shards = streams
    assert len(folder) == 6
    for expected, batch in zip(folder, shards, strict=True):
        assert torch.equal(batch.inputs, expected.inputs)
        assert torch.equal(batch.targets, expected.targets)
        assert torch.equal(batch.indices, expected.indices)


def test_the_index_is_kept_until_a_shard_changes(both, monkeypatch):
    _, shards = both
    first = loaded(shards)
    kept = sorted(shards.glob(".shards-*.safetensors"))
    assert len(kept) == 2
    with monkeypatch.context() as patch:
        patch.setattr(shard_index, "scan", None)
        assert torch.equal(loaded(shards).train.images, first.train.images)
    write_tar(shards / "train-000.tar", [("0.png", encoded(7)), ("0.cls", b"0")])
    assert len(loaded(shards, val_fraction=0).train) == 21
    assert not (shards.parent / "cache").exists()


def test_an_index_that_does_not_fit_is_made_anew(both):
    _, shards = both
    expected = loaded(shards).train.images
    for file in shards.glob(".shards-*.safetensors"):
        file.write_bytes(file.read_bytes()[:-9])
    assert torch.equal(loaded(shards).train.images, expected)


def test_an_index_beside_shards_that_cannot_be_written_is_kept_elsewhere(both, monkeypatch):
    _, shards = both
    write = shard_index.atomic_file

    def refused(path):
        if path.parent == shards:
            raise ResourceError("read-only")
        return write(path)

    monkeypatch.setattr(shard_index, "atomic_file", refused)
    first = loaded(shards).train.images
    assert len(list((shards.parent / "cache").glob(".shards-*"))) == 2
    monkeypatch.setattr(shard_index, "scan", None)
    assert torch.equal(loaded(shards).train.images, first)


def test_an_image_takes_few_bytes(both, tmp_path):
    index = indexed(sorted(both[1].glob("train-*.tar")), tmp_path)
    assert sum(column.nbytes for column in index.columns.values()) == 40 * 30
    assert {column.dtype.kind for column in index.columns.values()} == {"i", "u"}


def names_of(parts):
    return {split: [shard.name for shard in shards] for split, shards in parts.items()}


@pytest.mark.parametrize(
    ("stems", "split"),
    [
        (["train-0", "train-1", "val-0"], {"train": 2, "val": 1}),
        (["imagenet1k-train-0000", "imagenet1k-validation-00"], {"train": 1, "val": 1}),
        (["Training_1", "TEST_1", "valid.1"], {"train": 1, "val": 1, "test": 1}),
        (["000000", "000001"], {"train": 2}),
        (["train/0", "train/1", "val/0", "test/0"], {"train": 2, "val": 1, "test": 1}),
        (["train2017/a", "validation/a"], {"train": 1, "val": 1}),
    ],
)
def test_parts(tmp_path, stems, split):
    for stem in stems:
        write_tar(tmp_path / f"{stem}.tar", [])
    assert {name: len(shards) for name, shards in find_shards(str(tmp_path)).items()} == split


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("train-{000..002}.tar", ["train-000", "train-001", "train-002"]),
        ("train-{000,002}.tar", ["train-000", "train-002"]),
        ("train-{01..02..1}.tar", None),
        ("train-{0..2}.tar", None),
        ("t*-00[01].tar", ["train-000", "train-001"]),
        ("*-00?.tar", ["train-000", "train-001", "train-002", "val-000"]),
        ("{train,val}-{000..000}.tar", ["train-000", "val-000"]),
        ("train-001.tar", ["train-001"]),
    ],
)
def test_patterns(tmp_path, pattern, names):
    for stem in ("train-000", "train-001", "train-002", "val-000"):
        write_tar(tmp_path / f"{stem}.tar", [])
    if names is None:
        with pytest.raises(DataError, match="there is no shard"):
            find_shards(f"{tmp_path}/{pattern}")
    else:
        found = find_shards(f"{tmp_path}/{pattern}")
        assert sorted(s.stem for shards in found.values() for s in shards) == names


def sample(name, label=b"0", *, ending="cls", image="png"):
    return [(f"{name}.{image}", encoded(len(name))), (f"{name}.{ending}", label)]


def read(tmp_path, files, **keys):
    path = write_tar(tmp_path / "s.tar", [file for pair in files for file in pair])
    return read_shards(str(path), tmp_path, **keys)


def test_forms_of_labels_and_names(tmp_path):
    splits = read(
        tmp_path,
        [
            sample("./x/0", b" 1\n"),
            sample("x/1", json.dumps({"label": 0, "w": 5}).encode(), ending="json", image="JPG"),
            sample("y/1", b'{"cls": 1}', ending="json"),
            [("z.json", b'{"label": 5}'), ("z.cls", b"1"), ("z.png", encoded(3))],
            [("._z.png", b""), (".z.cls", b"")],
        ],
    )
    assert splits.train.labels.tolist() == [1, 0, 1, 1]
    assert splits.classes == ["0", "1"]
    assert splits.notes == ()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_forms_of_tar(tmp_path, form):
    names = ["a", "d" * 60 + "/" + "e" * 70, "f"]
    files = [f for i, name in enumerate(names) for f in sample(name, str(i % 2).encode())]
    path = write_tar(tmp_path / "s.tar", files, format=form)
    train = read_shards(str(path), tmp_path).train
    assert [train.read_bytes(i) for i in range(3)] == [encoded(len(name)) for name in names]
    assert train.path(0) == f"{path}:a.png"
    written_by_another = write_tar(tmp_path / "t.tar", files, format=tarfile.PAX_FORMAT)
    other = read_shards(str(written_by_another), tmp_path).train
    assert list(train.identities()) == list(other.identities())


def test_what_is_not_read_is_said(tmp_path):
    splits = read(
        tmp_path,
        [
            sample("0"),
            sample("1", b"1"),
            [("2.png", encoded(2)), ("2.txt", b"a caption")],
            [("3.cls", b"0")],
            [("4.npy", b"0")],
            [*sample("5"), ("5.seg.png", encoded(2))],
        ],
    )
    assert len(splits.train) == 3
    assert splits.notes == (
        f"train images without a label in {tmp_path}/s.tar are left out: 1",
        f"samples without an image in {tmp_path}/s.tar are left out: 2",
        "2 files are passed over, which are no images by their ending: .npy (1), .seg.png (1); "
        "convert or rename those that are",
    )
    assert read(tmp_path, [sample("0"), sample("1", b"1")]).notes == ()


def test_without_labels_all_images_are_kept(tmp_path):
    splits = read(tmp_path, [sample("0", b"4"), [("1.png", encoded(2))]], labeled=False)
    assert splits.train.labels.tolist() == [5, 0]
    assert splits.classes == []


TWO = [*sample("0"), *sample("1", b"1")]
BAD = {
    "two images": ([("0.png", encoded(0)), *sample("0", image="jpg")], "has two images, 0.png and"),
    "two labels": ([*sample("0"), ("0.cls", b"1")], "has two .cls files; keep one"),
    "a name": (sample("0", b"ant"), "label of the sample '0' in .* is 'ant'; labels are integers"),
    "a fraction": (sample("0", b"1.0"), "is '1.0'; labels are integers"),
    "below zero": (sample("0", b"-1"), "is '-1'; labels are integers"),
    "too large": (sample("0", b"9" * 11), "is '99999999999'; labels are integers"),
    "nothing": (sample("0", b""), "is ''; labels are integers"),
    "a string": (sample("0", b'{"label": "1"}', ending="json"), "is '1'; labels are integers"),
    "true": (sample("0", b'{"label": true}', ending="json"), "is 'True'; labels are integers"),
    "json": (sample("0", b'{"label": 1', ending="json"), "json of the sample '0' in .* is no JSON"),
    "deep": (sample("0", b"[" * 99999, ending="json"), "is no JSON"),
    "empty": ([], "there is no training image with a label in .*s.tar; a sample is"),
    "labels alone": ([("0.cls", b"1")], "there is no training image with a label"),
    "no label": ([("0.png", encoded(0))], "there is no training image with a label"),
    "one class": (sample("0"), "have one label; two classes are the least"),
    "a gap": ([*sample("0"), *sample("1", b"2")], "class 1 has no training image in"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_samples(tmp_path, case):
    files, message = BAD[case]
    path = write_tar(tmp_path / "s.tar", files)
    with pytest.raises(DataError, match=message) as refused:
        read_shards(str(path), tmp_path)
    assert "\n" not in str(refused.value)


def test_labels_beyond_the_training_set_and_the_names(tmp_path):
    write_tar(tmp_path / "train-0.tar", TWO)
    write_tar(tmp_path / "val-0.tar", sample("0", b"2"))
    with pytest.raises(DataError, match=r"a val image in .* has the label 2; .* from 0 to 1"):
        read_shards(str(tmp_path), tmp_path)
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\n")
    with pytest.raises(DataError, match=r"class 'cow' \(label 2\) has no training image"):
        read_shards(str(tmp_path), tmp_path)
    (tmp_path / "classes.txt").write_text("ant\n")
    with pytest.raises(DataError, match=r"has the label 1; the 1 class names allow"):
        read_shards(f"{tmp_path}/train-*.tar", tmp_path)


def test_bad_shards(tmp_path):
    path = write_tar(tmp_path / "s.tar", TWO)
    whole = path.read_bytes()
    for content, message in {
        gzip.compress(whole): "is compressed \\(gzip\\), so that no image",
        b"": "cannot read the shard .*empty file",
        b"no tar at all": "cannot read the shard",
        encoded(0): "cannot read the shard",
        whole[:700]: "cannot read the shard",
        whole.rstrip(b"\0"): "cannot read the shard",
        whole[:1024] + b"\7" * 512 + whole[1536:]: "is damaged at byte 1,024",
        whole + whole: "goes on behind its end",
    }.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_shards(str(path), tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="no regular file"):
        read_shards(str(path), tmp_path)


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True))
@example(cut=0.45)  # between two blocks, right behind the end
def test_a_tar_that_is_cut_off_is_refused_or_whole(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    path = write_tar(folder / "s.tar", TWO)
    whole = path.read_bytes()
    content = whole[: int(cut * len(whole))]
    path.write_bytes(content)
    blocks = -(-len(whole.rstrip(b"\0")) // 512)  # the last file is padded
    if len(content) >= (blocks + 1) * 512:  # and a block of zeros is the end
        assert len(read_shards(str(path), folder).train) == 2
    else:
        with pytest.raises(DataError, match="cannot read the shard"):
            read_shards(str(path), folder)


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        ([], "there is no shard .* give wds:FOLDER"),
        (["train-0", "other-0"], "other-0.tar looks like a part of the data as train is"),
        (["val-0"], "no training part beside"),
        (["train-val-0"], "is named as train and val; rename it"),
        (["0", "train/0"], "there are shards both in"),
        (["a/0", "b/0"], "are no parts by their names; call them train, val and test"),
    ],
)
def test_bad_folders(tmp_path, stems, message):
    for stem in stems:
        write_tar(tmp_path / f"{stem}.tar", TWO)
    with pytest.raises(DataError, match=message):
        find_shards(str(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train-{0..3}.tar", "train-2.tar, one of 2 that are missing"),
        ("*.tgz", r"no file matches '.*\*\.tgz'"),
        ("gone/*.tar", "no file matches"),
        ("train-{3..0}.tar", r"the range \{3..0\} .* is empty or too long"),
        ("{0..9999999999999}.tar", "is empty or too long"),
        ("{0..999}{0..999}.tar", "names more than 100,000 shards"),
        ("trian-0.tar", "there is no shard .*trian-0.tar.*train-0.tar"),
    ],
)
def test_bad_patterns(tmp_path, pattern, message):
    for number in range(2):
        write_tar(tmp_path / f"train-{number}.tar", TWO)
    with pytest.raises(DataError, match=message):
        find_shards(f"{tmp_path}/{pattern}")


def test_pictures_that_cannot_be_read_are_named(tmp_path):
    files = [*TWO, ("2.png", b"no picture"), ("2.cls", b"0"), ("3.png", encoded(1)[:90])]
    path = write_tar(tmp_path / "s.tar", [*files, ("3.cls", b"1")])
    with pytest.raises(DataError, match=r"s.tar:2.png \(of none of .*s.tar:3.png"):
        load(f"wds:{path}", val_fraction=0)


def test_a_shard_that_goes_away_or_shrinks(tmp_path):
    path = write_tar(tmp_path / "s.tar", TWO)
    train = read_shards(str(path), tmp_path).train
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"s.tar:0.png \(the shard ends within it\)"):
        train.open(0)
    path.unlink()
    with pytest.raises(DataError, match=r"s.tar:byte 512 \(No such file"):
        train.open(0)


def test_data_are_known_again_wherever_they_lie(both, tmp_path, monkeypatch):
    monkeypatch.setattr("selfdistill.data.class_folders._IN_MEMORY", 0)
    _, shards = both
    record = describe_data(loaded(shards))
    moved = shards.rename(tmp_path / "elsewhere")
    assert image_difference(record, loaded(moved)) == ""
    rows = samples(30)
    write_shards(moved, [(f"x{name}", *rest) for name, *rest in rows])
    assert "other names or another order" in image_difference(record, loaded(moved))
    write_shards(moved, [(name, content, (label + 1) % 3) for name, content, label in rows])
    assert "labels of its train images are others" in image_difference(record, loaded(moved))


def test_a_crafted_size_does_not_go_on_for_ever(tmp_path, time_limit):
    header = tarfile.TarInfo("0.png").tobuf()
    for size in (-512, -(2**40)):
        number = (256**11 + size).to_bytes(11, "big")
        crafted = header[:124] + b"\xff" + number + b" " * 8 + header[156:]
        total = sum(crafted)
        crafted = crafted[:148] + b"%06o\0 " % total + crafted[156:]
        (tmp_path / "s.tar").write_bytes(crafted + bytes(1024))
        with time_limit(20), pytest.raises(DataError, match="cannot read the shard"):
            read_shards(str(tmp_path / "s.tar"), tmp_path)


def test_many_images_keep_their_places(tmp_path):
    """Random access against tarfile's own reading, over many shards."""
    rows = samples(60)
    write_shards(tmp_path, rows, 7)
    train = read_shards(str(tmp_path), tmp_path).train
    order = torch.from_numpy(np.random.default_rng(0).permutation(60))
    taken = train.take(order)
    for place, row in enumerate(order.tolist()):
        shard, _, name = taken.path(place).rpartition(":")
        with tarfile.open(shard) as tar:
            assert taken.read_bytes(place) == tar.extractfile(name).read() == rows[row][1]
        assert taken.labels[place] == rows[row][2]
        assert taken.num_bytes(place) == len(rows[row][1])
        assert re.search(r"train-00\d.tar$", shard)
