"""What is said of boxes that cannot be right, and where boxes come to lie."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from selfdistill.core import DataError
from selfdistill.data.box_table import (
    BoxTable,
    box_table,
    check_boxes,
    letterbox_boxes,
)
from selfdistill.data.letterbox import LetterboxedFiles, letterbox_areas
from selfdistill.data.parts import split_of_name

INSIDE = (0, 1, 10, 10, 20, 20)


def one(*rows, size=(48, 64)) -> BoxTable:
    return box_table(["a.png", "b.png"], np.array([size, size]), [INSIDE, *rows])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ((1, 0, 5, 5, 5, 9), r"\(5, 5, 5, 9\) in b.png, which is 64×48, has no area"),
        ((1, 0, 5, 9, 8, 7), "has no area"),
        ((1, 0, 5, float("nan"), 8, 7), r"\(5, nan, 8, 7\) in b.png, .* lacks a corner"),
        ((1, 0, 5, 5, 65.5, 9), r"\(5, 5, 65.5, 9\) in b.png, .* reaches out of the picture"),
        ((0, 0, -1.5, 5, 9, 9), r"in a.png, .* reaches out"),
        ((0, 0, 5, 5, 9, float("inf")), "reaches out"),
        ((0, 0, 64.2, 5, 64.8, 9), "reaches out"),
    ],
)
def test_boxes_that_cannot_be_right(row, sentence):
    with pytest.raises(DataError, match=sentence + ".*--invalid-boxes fix"):
        check_boxes(one(row), "refuse", "keep")


def test_of_several_faults_the_first_is_told_and_all_counted():
    with pytest.raises(DataError, match=r"\(1, 1, 1, 2\) .* has no area \(and 1 more\)"):
        check_boxes(one((0, 0, 1, 1, 1, 2), (1, 0, 3, 3, 3, 3)), "refuse", "keep")


def test_a_pixel_of_rounding_is_clipped():
    result = check_boxes(one((1, 0, -1, 0, 65, 48.5)), "refuse", "keep")
    assert result.corners.tolist() == [[10, 10, 20, 20], [0, 0, 64, 48]]


def test_mending_clips_and_leaves_out():
    rows = [(0, 2, 5, 5, 5, 9), (0, 2, 60, 40, 90, 90), (1, 2, 70, 5, 90, 9)]
    result = check_boxes(one(*rows), "fix", "keep")
    assert result.corners.tolist() == [[10, 10, 20, 20], [60, 40, 64, 48]]
    assert result.owners.tolist() == [0, 0]
    with pytest.raises(DataError, match=r"1 of 2 pictures hold no object, the first is b.png"):
        check_boxes(one(*rows), "fix", "refuse")


@pytest.mark.parametrize(
    ("name", "part"),
    [("train2017", "train"), ("valid", "val"), ("val", "val"), ("test", "test"), ("tests", None),
     ("captions_train2017", None)],
)  # fmt: skip
def test_parts_by_name(name, part):
    assert split_of_name(name) == part


@pytest.mark.parametrize(
    ("stored", "frame", "folder"),
    [
        ((480, 640), (320, 320), [40, 0, 240, 320]),
        ((640, 480), (320, 320), [0, 40, 320, 240]),
        ((100, 100), (320, 640), [0, 160, 320, 320]),
        ((1, 4000), (32, 32), [15, 0, 1, 32]),
    ],
)
def test_places_in_the_frame(stored, frame, folder):
    assert letterbox_areas(np.array([stored]), frame)[0].tolist() == folder


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_box_stays_around_what_is_drawn_in_it(data):
    side = st.integers(24, 120)
    height, width = data.draw(side), data.draw(side)
    frame = data.draw(st.tuples(st.sampled_from([32, 64, 96]), st.sampled_from([32, 64, 96])))
    x1, y1 = data.draw(st.integers(0, width - 12)), data.draw(st.integers(0, height - 12))
    x2, y2 = data.draw(st.integers(x1 + 12, width)), data.draw(st.integers(y1 + 12, height))
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[y1:y2, x1:x2] = 255
    ours = box_table(["a"], np.array([(height, width)]), [(0, 0, x1, y1, x2, y2)])
    images = LetterboxedFiles(ours.paths, letterbox_boxes(ours, frame), ours.sizes)
    seen_y, seen_x = (images.fit_to_size(Image.fromarray(pixels))[0] > 184).nonzero().unbind(1)
    visible = torch.stack([seen_x.min(), seen_y.min(), seen_x.max() + 1, seen_y.max() + 1])
    assert (images.targets.rows[0, 0, 1:] - visible).abs().max() <= 1 + max(frame) / min(
        height, width
    )


def test_boxes_are_gathered_by_picture_in_any_order():
    rows = [(1, 0, 1, 1, 2, 2), (0, 1, 3, 3, 4, 4), (1, 2, 5, 5, 6, 6)]
    result = letterbox_boxes(box_table(["a", "b", "c"], np.full((3, 2), 32), rows), (32, 32)).rows
    assert result[..., 0].tolist() == [[1, -1], [0, 2], [-1, -1]]
    assert result[1, 1].tolist() == [2, 5, 5, 6, 6]
