"""Boxes of annotations that have masks alone, compared with COCO's own arithmetic."""

import json

import numpy as np
import pytest
import torch
from box_folder_files import coco
from faster_coco_eval import mask as reference

from selfdistill.core import DataError
from selfdistill.data import load
from selfdistill.data.coco_masks import mask_corners

FILE = "annotations/instances_train2017.json"
DRAW = np.random.default_rng(0)


def masks():
    """Blobs, single pixels, whole columns, all and nearly nothing of small pictures."""
    for height, width in ((1, 1), (7, 5), (5, 9), (40, 30)):
        for density in (0.02, 0.3, 0.9):
            yield (DRAW.random((height, width)) < density).astype(np.uint8)
        whole = np.zeros((height, width), np.uint8)
        whole[:, width // 2] = 1
        yield whole
        yield np.ones((height, width), np.uint8)


@pytest.mark.parametrize("mask", list(masks()), ids=lambda mask: f"{mask.shape}")
def test_run_lengths(mask):
    encoded = reference.encode(np.asfortranarray(mask))
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    counts = [0, *counts] if flat[0] else counts
    size = [int(side) for side in encoded["size"]]
    text = encoded["counts"]
    text = text.decode() if isinstance(text, bytes) else text
    x, y, width, height = reference.toBbox(encoded).tolist()
    for form in ({"size": size, "counts": text}, {"size": size, "counts": counts}):
        corners = mask_corners(form)
        if mask.any():
            assert corners == (x, y, x + width, y + height)
        else:
            assert np.isnan(corners).all()


def test_polygons():
    two = [[10, 20, 30, 5, 15.5, 40], [2, 8, 3, 9, 3, 8]]
    assert mask_corners(two) == (2, 5, 30, 40)
    assert np.isnan(mask_corners([])).all()


@pytest.mark.parametrize(
    "segmentation",
    [
        "polygon", 3, [3, 4, 5, 6], [[1, 2, 3]], [["a", "b"]], {"counts": "00"}, {"size": [4, 4]},
        {"size": [4, 4], "counts": [8, 9]}, {"size": [4, 4], "counts": [-1, 17]},
        {"size": [4, 4], "counts": "\x7f~"}, {"size": [0, 4], "counts": []},
        {"size": [4], "counts": [16]}, {"size": [4, 4], "counts": "é"},
    ],
)  # fmt: skip
def test_what_is_no_mask(segmentation):
    with pytest.raises((ValueError, TypeError, LookupError)):
        mask_corners(segmentation)


def read(path, **options):
    return load(f"folder:{path}", task="detection", **options)


def edit(path, change):
    content = json.loads((path / FILE).read_text())
    change(content["annotations"])
    (path / FILE).write_text(json.dumps(content))


@pytest.mark.parametrize("empty", [None, [], "none"])
def test_boxes_come_from_masks_where_they_lack(tmp_path, empty):
    folder = coco(tmp_path / "set")
    want = read(folder).train.targets.rows

    def change(annotations):
        for annotation in annotations[::2]:
            x, y, w, h = annotation["bbox"]
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotation["bbox"] = empty
            if empty == "none":
                del annotation["bbox"]

    edit(folder, change)
    assert torch.equal(read(folder).train.targets.rows, want)


def test_faults_are_told(tmp_path):
    folder = coco(tmp_path / "set")
    edit(folder, lambda a: a[1].pop("bbox"))
    with pytest.raises(DataError, match="lacks a corner"):
        read(folder)
    assert len(read(folder, invalid_boxes="fix").train) == 6
    edit(folder, lambda a: a[1].update(segmentation=[[1, 2, 3]]))
    sentence = r"annotation 1 in .* has no bbox, and its segmentation is in no form of COCO's \("
    with pytest.raises(DataError, match=sentence):
        read(folder)
    edit(folder, lambda a: a[1].update(iscrowd=1))
    read(folder)
