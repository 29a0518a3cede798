"""Masks and boxes go where their images go: each is compared with pixels that were moved."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.core import IGNORE
from selfdistill.data.geometry import GeometricAugmentation
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.data.loader import Loader
from selfdistill.data.targets import NO_BOX, Boxes, Labels, Masks
from selfdistill.data.zoom import GRAY, zoom_box, zoom_images

SIZE = (24, 32)
INDEX = torch.arange(16)


def blocks() -> torch.Tensor:
    """Masks of large blocks of the classes 1 … 3."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(1, 4, (16, 3, 4), generator=generator).to(torch.uint8)
    return coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)


@pytest.mark.parametrize(
    "geometry",
    [
        GeometricAugmentation(3, crop_padding=4),
        GeometricAugmentation(3, flip=True),
        GeometricAugmentation(3, max_zoom=2.0),
        GeometricAugmentation(3, crop_padding=3, flip=True, max_zoom=1.5),
    ],
)
def test_a_mask_moves_with_its_image(geometry):
    masks = blocks()
    images = (masks * 60)[:, None].repeat(1, 3, 1, 1)  # an image whose color is its class
    moved = geometry.pad_and_flip(geometry.crop_or_zoom(images, 2, INDEX), 2, INDEX)[:, 0]
    labels = Masks(masks).fetch(INDEX, geometry, 2)
    pixels = labels != IGNORE
    # bilinear colors differ along the blocks' edges only
    assert ((moved.long() - labels * 60).abs() <= 2)[pixels].float().mean() > 0.85
    assert set(labels.unique().tolist()) <= {1, 2, 3, IGNORE}


def test_without_zoom_every_pixel_is_exact():
    masks, geometry = blocks(), GeometricAugmentation(5, crop_padding=6, flip=True)
    images = masks[:, None].repeat(1, 3, 1, 1)
    moved = geometry.pad_and_flip(images, 1, INDEX)[:, 0].long()
    labels = Masks(masks).fetch(INDEX, geometry, 1)
    assert torch.equal(torch.where(labels == IGNORE, 0, labels), moved)
    assert (labels == IGNORE).any()


def test_evaluation_moves_nothing():
    assert torch.equal(Masks(blocks()).fetch(INDEX), blocks().long())


def drawn(rows: torch.Tensor) -> torch.Tensor:
    """Images that are white inside each row's box."""
    y = torch.arange(SIZE[0])[:, None] + 0.5
    x = torch.arange(SIZE[1])[None] + 0.5
    x1, y1, x2, y2 = (rows[:, 0, i, None, None] for i in range(1, 5))
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    return (inside * 255).to(torch.uint8)[:, None].repeat(1, 3, 1, 1)


@pytest.mark.parametrize(
    "geometry",
    [
        GeometricAugmentation(1, crop_padding=4),
        GeometricAugmentation(1, flip=True),
        GeometricAugmentation(1, flip=True, max_zoom=1.6),
    ],
)
def test_a_box_moves_with_its_image(geometry):
    rows = torch.tensor([[[1.0, 8, 6, 20, 16]]]).repeat(16, 1, 1)
    moved = (
        geometry.pad_and_flip(geometry.crop_or_zoom(drawn(rows), 0, INDEX), 0, INDEX)[:, 0] > 127
    )
    for picture, row in zip(moved, Boxes(rows, SIZE).fetch(INDEX, geometry), strict=True):
        assert row[0, 0] == 1
        y, x = picture.nonzero().unbind(1)
        pixels = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert (row[0, 1:] - pixels).abs().max() <= 1.5  # bilinear edges


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_box_stays_around_what_is_drawn_in_it(data):
    geometry = GeometricAugmentation(
        data.draw(st.integers(0, 2**31)),
        crop_padding=data.draw(st.integers(0, 5)),
        flip=data.draw(st.booleans()),
        max_zoom=data.draw(st.floats(1.0, 2.0)),
    )
    x1, y1 = data.draw(st.integers(0, SIZE[1] - 6)), data.draw(st.integers(0, SIZE[0] - 6))
    x2, y2 = data.draw(st.integers(x1 + 6, SIZE[1])), data.draw(st.integers(y1 + 6, SIZE[0]))
    rows = torch.tensor([[[1.0, x1, y1, x2, y2]]]).repeat(16, 1, 1)
    moved = (
        geometry.pad_and_flip(geometry.crop_or_zoom(drawn(rows), 7, INDEX), 7, INDEX)[:, 0] > 184
    )
    for picture, row in zip(moved, Boxes(rows, SIZE).fetch(INDEX, geometry, 7)[:, 0], strict=True):
        if row[0] == NO_BOX:
            assert picture.float().mean() < 0.5  # a tenth of what was asked for at most
            continue
        y, x = picture.nonzero().unbind(1)
        if len(x):  # a sliver of less than a pixel need not reach the threshold
            pixels = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
            assert (row[1:] - pixels).abs().max() <= 2
        else:
            assert (row[3:] - row[1:3]).min() < 2


def test_around_a_smaller_picture_there_is_gray():
    images = torch.full((1, 3, 8, 8), 10, dtype=torch.uint8)
    boxes_now = zoom_images(images, torch.tensor([[-4.0, 0, 16, 16]]))
    want = torch.full((8, 8), GRAY, dtype=torch.uint8)
    want[2:6, :4] = 10
    assert torch.equal(boxes_now[0], want.expand(3, 8, 8))


def test_a_box_that_leaves_the_image_is_none():
    rows = torch.tensor([[[2.0, 0, 0, 3, 3], [NO_BOX, 0, 0, 0, 0]]]).repeat(16, 1, 1)
    boxes_now = Boxes(rows, SIZE).fetch(INDEX, GeometricAugmentation(0, crop_padding=8))
    assert (boxes_now[:, 1, 0] == NO_BOX).all()
    gone = boxes_now[:, 0, 0] == NO_BOX
    assert gone.any()
    assert (boxes_now[gone][:, 0, 1:] == 0).all()
    inside = boxes_now[~gone][:, 0, 1:]
    assert (inside >= 0).all()
    assert (inside <= torch.tensor([32, 24, 32, 24])).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(1.01, 4.0))
def test_a_zoom_lies_in_the_image_or_around_it(seed, zoom):
    top, left, tall, wide = zoom_box(seed, 0, torch.arange(64), *SIZE, zoom).unbind(1)
    for start, side, area in ((top, tall, SIZE[0]), (left, wide, SIZE[1])):
        assert ((side >= area / zoom - 1e-3) & (side <= area * zoom + 1e-3)).all()
        near = side <= area
        assert (start[near] >= -1e-3).all()
        assert (start + side <= area + 1e-2)[near].all()
        assert (start[~near] <= 1e-3).all()
        assert (start + side >= area - 1e-2)[~near].all()


def test_batches_carry_moved_masks_and_other_epochs_other_draws():
    images = InMemoryImages(torch.zeros(16, 3, *SIZE, dtype=torch.uint8), Masks(blocks()))
    loader = Loader(
        images,
        batch_size=8,
        seed=0,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        crop_padding=0,
        flip=True,
        max_zoom=2.0,
    )
    batches = [next(iter(loader.epoch(epoch)))[0] for epoch in (0, 0, 1)]
    assert batches[0].targets.shape == (8, *SIZE)
    assert torch.equal(batches[0].targets, batches[1].targets)
    assert not torch.equal(batches[0].targets, batches[2].targets)
    want = Masks(blocks()).fetch(
        batches[0].indices, GeometricAugmentation(0, flip=True, max_zoom=2.0), 0
    )
    assert torch.equal(batches[0].targets, want)


@pytest.mark.parametrize("targets", [Labels(INDEX), Masks(blocks())])
def test_taken_targets_are_those_of_the_places(targets):
    picked = torch.tensor([3, 1])
    assert torch.equal(targets.take(picked).fetch(torch.arange(2)), targets.fetch(picked))


def test_stretched_boxes_and_masks():
    rows = torch.tensor([[[0.0, 8, 6, 20, 16]]])
    boxes_now = Boxes(rows, SIZE).resized(SIZE, (48, 32)).fetch(torch.tensor([0]))
    assert boxes_now[0, 0].tolist() == [0, 8, 12, 20, 32]
    assert torch.equal(Masks(blocks()).resized(SIZE, (12, 16)).masks, blocks()[:, 1::2, 1::2])
