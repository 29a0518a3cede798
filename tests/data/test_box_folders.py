"""One truth in three layouts, sizes of the frame, and what is kept in memory."""

import shutil

import numpy as np
import pytest
import torch
from box_folder_files import COUNTS, LAYOUTS, NAMES, coco, picture, truth, yolo

from selfdistill.core import ConfigError, DataError
from selfdistill.data import ImageFiles, InMemoryImages, Loader, box_folders, load
from selfdistill.data.hold_out import subsample
from selfdistill.data.zoom import GRAY

LOADING = {"seed": 3, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}


def read(path, **options):
    return load(f"folder:{path}", task="detection", **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_truth(layout, tmp_path):
    data = read(LAYOUTS[layout](tmp_path / "set"))
    assert (data.layout, data.classes, data.task) == (layout, NAMES, "detection")
    assert data.train.shape == (3, 64, 64)
    assert (data.crop_padding, data.flip, data.max_zoom, data.resized_crop) == (
        0,
        True,
        box_folders.MAX_ZOOM,
        False,
    )
    for part in COUNTS:
        images, entries = getattr(data, part), truth()[part]
        assert len(images) == len(entries)
        result = images.targets.fetch(torch.arange(len(images)))
        most = max(len(objects) for *_, objects in entries)
        assert result.shape == (len(images), most, 5)
        for row, (_, size, objects) in zip(result, entries, strict=True):
            kept = row[row[:, 0] >= 0]
            scale = min(64 / size[0], 64 / size[1])
            inner = [round(side * scale) for side in size]
            left, top = (64 - inner[1]) // 2, (64 - inner[0]) // 2
            want = [
                [k, left + a * inner[1] / size[1], top + b * inner[0] / size[0],
                 left + c * inner[1] / size[1], top + d * inner[0] / size[0]]
                for k, a, b, c, d in objects
            ]  # fmt: skip
            torch.testing.assert_close(kept, torch.tensor(want).reshape(-1, 5), atol=1e-3, rtol=0)
            assert (row[len(kept) :] == torch.tensor([-1.0, 0, 0, 0, 0])).all()


def test_a_picture_that_fills_the_frame_is_left_as_it_is(tmp_path):
    folder = tmp_path / "set"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(4):
        picture(str(i), (32, 64)).save(folder / "images" / f"{i}.png")
        (folder / "labels" / f"{i}.txt").write_text("0 .5 .5 .5 .5\n")
    data = read(folder, val_fraction=0.25)
    assert data.train.shape == (3, 32, 64)  # of one common size, which need not be square
    assert (data.classes, len(data.train), len(data.val), data.test) == (["0"], 3, 1, None)
    stored = [np.array(picture(str(i), (32, 64))) for i in range(4)]
    result = data.val.fetch(torch.tensor([0]))[0].movedim(0, 2).numpy()
    assert any(np.array_equal(result, item) for item in stored)
    assert data.val.targets.fetch(torch.tensor([0])).tolist() == [[[0, 16, 8, 48, 24]]]


@pytest.mark.parametrize(
    ("stored", "frame"),
    [
        ([(480, 640)], (480, 640)),
        ([(427, 640), (640, 480), (333, 500)], (640, 640)),  # COCO
        ([(375, 500), (500, 333)], (512, 512)),  # VOC
        ([(1080, 1920)], (384, 640)),
        ([(20, 30)], (32, 32)),
    ],
)
def test_the_frame_holds_all_pictures(stored, frame):
    empty = np.zeros(0, dtype=np.int64)
    table = box_folders.BoxTable(
        ["x"] * len(stored), np.array(stored), empty, empty, np.zeros((0, 4))
    )
    assert box_folders._frame_size({"train": table}) == frame


def test_the_size_that_is_asked_for_is_square(tmp_path):
    data = read(coco(tmp_path / "set"), image_size=96)
    assert data.train.shape == (3, 96, 96)
    first = data.train.fetch(torch.tensor([0]))[0]  # 56 × 40
    assert (first[:, :, :13] == GRAY).all()
    assert (first[:, :, 83:] == GRAY).all()
    assert data.train.targets.fetch(torch.tensor([0]))[0, 0].tolist() == [0, 13, 0, 82, 96]


def test_val_alone_has_the_last_word(tmp_path):
    folder = coco(tmp_path / "set")
    (folder / "annotations" / "instances_test2017.json").unlink()
    data = read(folder, val_fraction=0.34)
    assert (len(data.train), len(data.val), len(data.test)) == (4, 2, 2)


def test_limit_and_share_keep_pictures_and_boxes_together(tmp_path):
    full = read(coco(tmp_path / "set"), val_fraction=0).train
    some = read(tmp_path / "set", val_fraction=0, max_train_images=3).train
    places = [
        next(i for i in range(6) if torch.equal(full.images[i], image)) for image in some.images
    ]
    assert places == sorted(places)
    assert torch.equal(some.targets.rows, full.targets.rows[places])
    assert subsample(some, 9) is some


@pytest.fixture
def streamed(tmp_path, monkeypatch):
    monkeypatch.setattr(box_folders, "_IN_MEMORY", 0)
    return read(coco(tmp_path / "set"))


@pytest.mark.parametrize("views", [1, 2])
def test_streamed_batches_are_those_from_memory(streamed, tmp_path, views):
    assert isinstance(streamed.train, ImageFiles)
    options = {"crop_padding": 3, "flip": True, "max_zoom": 2.0}
    resident = InMemoryImages(streamed.train.load_into_memory().images, streamed.train.targets)
    assert torch.equal(resident.fetch(torch.arange(6)), streamed.train.fetch(torch.arange(6)))
    batches = [
        list(Loader(images, **LOADING, batch_size=2, views=views, **options).epoch(1))
        for images in (streamed.train, resident)
    ]
    for (one,), (other,) in zip(*batches, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
        assert all(map(torch.equal, one.views, other.views))
        assert len(one.views) == views - 1


def test_a_resumed_epoch_goes_on_with_the_same_streamed_batches(streamed):
    loader = Loader(
        streamed.train, batch_size=2, crop_padding=0, flip=True, max_zoom=1.5, **LOADING
    )
    full, others = list(loader.epoch(2)), list(loader.epoch(2, start=1))
    assert len(full) == len(others) + 1
    for (one,), (other,) in zip(full[1:], others, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)


def test_a_picture_of_another_size_than_annotated_is_told_while_streaming(streamed):
    picture("x", (30, 30)).save(streamed.train.path(2))
    with pytest.raises(DataError, match=r"30×30 and its annotation is for 40×56"):
        streamed.train.fetch(torch.tensor([2]))


def test_pictures_without_an_object_are_refused_on_demand(tmp_path):
    folder = coco(tmp_path / "set")
    assert int(read(folder, val_fraction=0).train.targets.empty().sum()) == 1
    with pytest.raises(
        DataError, match=r"1 of 6 pictures hold no object.*train5.*--empty-images keep"
    ):
        read(folder, empty_images="refuse")


def test_words_are_checked(tmp_path):
    with pytest.raises(
        ConfigError, match=r"empty_images='kep' is unknown \(did you mean 'keep'\?\)"
    ):
        read(tmp_path, empty_images="kep")
    with pytest.raises(ConfigError, match=r"invalid_boxes='mend' is unknown"):
        read(tmp_path, invalid_boxes="mend")


def test_a_folder_in_no_layout(tmp_path):
    (tmp_path / "sett").mkdir()
    with pytest.raises(DataError, match=r"there is no folder .*\(did you mean 'sett'\?\)"):
        read(tmp_path / "set")
    with pytest.raises(DataError, match=r"none of the layouts.*COCO.*Pascal VOC.*YOLO") as result:
        read(tmp_path / "sett")
    assert "folders of classes" not in str(result.value)
    (tmp_path / "flowers" / "daisy").mkdir(parents=True)
    picture("x", (8, 8)).save(tmp_path / "flowers" / "daisy" / "0.png")
    with pytest.raises(DataError, match="folders of classes, leave out --task"):
        read(tmp_path / "flowers")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_boxes_are_not_taken_for_another_task(layout, task, tmp_path):
    folder = LAYOUTS[layout](tmp_path / "set")
    with pytest.raises(DataError, match="holds images with boxes; give --task detection"):
        load(f"folder:{folder}", task=task)


@pytest.mark.parametrize("task", ["classification", "detection"])
@pytest.mark.parametrize("part", ["train", "."])
def test_masks_are_not_taken_for_another_task(part, task, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / part / kind).mkdir(parents=True)
        picture("x", (8, 8)).save(tmp_path / part / kind / "x.png")
    with pytest.raises(DataError, match="holds images with masks; give --task segmentation"):
        load(f"folder:{tmp_path}", task=task)


def test_unknown_name():
    with pytest.raises(DataError, match=r"no data set 'coco' for detection.*voc"):
        load("coco", task="detection")


def test_no_object_at_all(tmp_path):
    folder = yolo(tmp_path / "set")
    for file in (folder / "labels" / "train").iterdir():
        file.write_text("")
    with pytest.raises(DataError, match="no object in any of the training pictures"):
        read(folder)


def test_a_broken_picture_is_named(tmp_path):
    folder = coco(tmp_path / "set")
    (folder / "train2017" / "train1.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"cannot read the image .*train1\.png"):
        read(folder)
    shutil.rmtree(folder / "val2017")
    with pytest.raises(DataError, match=r"names the picture .*val0\.png, and there is none"):
        read(folder)
