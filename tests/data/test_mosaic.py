"""Mosaics, scale and shift against pictures that are pasted and boxes that are painted."""

import numpy as np
import pytest
import torch
from box_folder_files import coco
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.core import IGNORE
from selfdistill.data import InMemoryImages, Loader, load
from selfdistill.data.geometry import GeometricAugmentation
from selfdistill.data.mosaic import Mosaic
from selfdistill.data.targets import NO_BOX, Boxes, Masks
from selfdistill.data.zoom import GRAY, jittered_window

SIZE = (24, 32)
COUNT = 12
INDEX = torch.arange(COUNT)
LOADING = {"seed": 3, "mean": (0.0,) * 3, "std": (1 / 255,) * 3, "crop_padding": 0, "flip": False}
YOLO = {"scale_jitter": 0.5, "shift": 0.1, "mosaic_probability": 1.0}


def areas() -> torch.Tensor:
    """Pictures of unequal sizes, each in the middle of its image, as letterboxing leaves them."""
    draw = np.random.default_rng(1)
    sides = np.stack([draw.integers(8, SIZE[0] + 1, COUNT), draw.integers(8, SIZE[1] + 1, COUNT)])
    start = (np.array(SIZE)[:, None] - sides) // 2
    return torch.from_numpy(np.concatenate([start, sides]).T).float()


def pictures() -> torch.Tensor:
    """Noise inside of the areas, gray around."""
    noise = torch.randint(0, 256, (COUNT, 3, *SIZE), generator=torch.Generator().manual_seed(0))
    framed = torch.full_like(noise, GRAY)
    for picture, source, area in zip(framed, noise, areas().int().tolist(), strict=True):
        top, left, height, width = area
        rows, columns = slice(top, top + height), slice(left, left + width)
        picture[:, rows, columns] = source[:, rows, columns]
    return framed.byte()


def geometry(probability=1.0, seed=5, **keys) -> GeometricAugmentation:
    mosaic = Mosaic(seed, probability, areas(), SIZE, keys.pop("epochs", None))
    return GeometricAugmentation(seed, **keys, mosaic=mosaic)


def made(moves: GeometricAugmentation, images: torch.Tensor, epoch=0, index=INDEX, view=0):
    """The augmented images, all pictures being at hand."""
    places = moves.mosaic.samples(epoch, index, view)
    mosaics = moves.mosaics(images, places, epoch, index, view)
    return moves.pad_and_flip(mosaics, epoch, index, view)


def pasted(images: torch.Tensor, samples: list[int], y: int, x: int) -> np.ndarray:
    """The mosaic by slices of a canvas that holds all of the four pictures."""
    height, width = SIZE
    canvas = np.full((3, 3 * height, 3 * width), GRAY, dtype=np.uint8)
    for tile, sample in enumerate(samples):
        top, left, tall, wide = areas()[sample].int().tolist()
        start_y = height + y - (0 if tile >= 2 else tall)
        start_x = width + x - (0 if tile % 2 else wide)
        picture = images[sample, :, top : top + tall, left : left + wide].numpy()
        canvas[:, start_y : start_y + tall, start_x : start_x + wide] = picture
    return canvas[:, height : 2 * height, width : 2 * width]


def test_a_mosaic_is_four_pictures_that_meet_in_a_point():
    images, moves = pictures(), geometry()
    mosaics = made(moves, images)
    layout = moves.mosaic.layout(0, INDEX)
    assert len(layout.center.unique(dim=0)) > COUNT // 2
    for mosaic, samples, (y, x) in zip(
        mosaics, layout.samples.tolist(), layout.center.int().tolist(), strict=True
    ):
        assert np.array_equal(mosaic.numpy(), pasted(images, samples, y, x))


def test_each_sample_is_in_its_mosaic_at_every_place_and_partners_are_any():
    moves = geometry()
    samples = torch.stack([moves.mosaic.samples(e, INDEX) for e in range(300)])  # (300, COUNT, 4)
    own = samples == INDEX[:, None]
    assert own.any(-1).all()
    assert (own.float().mean((0, 1)) - (1 + 3 / COUNT) / 4).abs().max() < 0.03
    counts = torch.bincount(samples.flatten(), minlength=COUNT).float()
    assert (counts / counts.sum() - 1 / COUNT).abs().max() < 0.01
    half = geometry(0.3).mosaic.chosen(0, torch.arange(4000))
    assert half.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_images_that_are_no_mosaic_are_as_without():
    images, moves = pictures(), geometry(0.5, scale_jitter=0.5, shift=0.1, flip=True)
    plain = GeometricAugmentation(5, scale_jitter=0.5, shift=0.1, flip=True)
    want = plain.pad_and_flip(plain.crop_or_zoom(images, 0, INDEX), 0, INDEX)
    alone = ~moves.mosaic.chosen(0, INDEX)
    assert 2 <= alone.sum() <= COUNT - 2
    own, want = made(moves, images)[alone].int(), want[alone].int()
    for one, other, area in zip(own, want, areas()[alone].tolist(), strict=True):
        if area == [0, 0, *SIZE]:  # else its edge is blended with the gray that lies behind it
            assert (one - other).abs().max() <= 1
    assert ((own - want).abs() <= 1).float().mean() > 0.85
    rows = torch.tensor([1.0, 9, 8, 20, 17]).repeat(COUNT, 1, 1)
    boxes = Boxes(rows, SIZE, areas())
    framed = boxes.fetch(INDEX, moves)[alone]
    assert framed.shape[1] == 4
    assert torch.equal(framed[:, :1], boxes.fetch(INDEX, plain)[alone])
    assert (framed[:, 1:, 0] == NO_BOX).all()


def boxes_in_areas(seed: int, per_picture: int = 3) -> torch.Tensor:
    """Random boxes in whole pixels; every fifth picture has none, the others up to three."""
    draw = np.random.default_rng(seed)
    rows = np.zeros((COUNT, per_picture, 5), dtype=np.float32)
    rows[..., 0] = NO_BOX
    for number, (top, left, tall, wide) in enumerate(areas().int().tolist()):
        for box in range(0 if number % 5 == 4 else draw.integers(1, per_picture + 1)):
            height, width = draw.integers(4, tall + 1), draw.integers(4, wide + 1)
            y, x = draw.integers(0, tall - height + 1), draw.integers(0, wide - width + 1)
            corners = left + x, top + y, left + x + width, top + y + height
            rows[number, box] = draw.integers(0, 3), *corners
    return torch.from_numpy(rows)


def painted(rows: torch.Tensor, picture: int, box: int) -> torch.Tensor:
    """Black images, one of which has its box filled with white."""
    images = torch.zeros(COUNT, 3, *SIZE, dtype=torch.uint8)
    x1, y1, x2, y2 = rows[picture, box, 1:].int().tolist()
    images[picture, :, y1:y2, x1:x2] = 255
    return images


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([{}, {"flip": True}, {"crop_padding": 3}]))
def test_boxes_are_around_what_is_painted_in_them(seed, more):
    moves = geometry(0.8, seed, scale_jitter=0.5, shift=0.2, **more)
    rows = boxes_in_areas(seed)
    moved = Boxes(rows, SIZE, areas()).fetch(INDEX, moves).unflatten(1, (4, -1))
    layout = moves.mosaic.layout(0, INDEX)
    for picture, box in (rows[..., 0] >= 0).nonzero()[::3].tolist():
        images = made(moves, painted(rows, picture, box))
        in_tile = (layout.samples == picture) & layout.present
        for sample in (in_tile.sum(1) == 1).nonzero()[:, 0].tolist():
            row = moved[sample, int(in_tile[sample].int().argmax()), box]
            y, x = (images[sample, 0] > 184).nonzero().unbind(1)
            if row[0] == NO_BOX:  # at most a tenth of it, or two pixels, and what blurs at the edge
                extent = (y.max() - y.min(), x.max() - x.min()) if len(y) else (0, 0)
                assert min(extent) <= 3 or len(y) < 0.2 * SIZE[0] * SIZE[1]
                continue
            assert row[0] == rows[picture, box, 0]
            pixels = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
            assert (row[1:] - pixels).abs().max() <= 1.6  # of bilinear edges, enlarged by 1.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 0.9), st.floats(0, 1))
def test_no_box_is_outside_and_what_is_left_is_yolov5s_rule(seed, scale_jitter, shift):
    moves = geometry(0.7, seed, scale_jitter=scale_jitter, shift=shift)
    boxes = Boxes(boxes_in_areas(seed), SIZE, areas())
    rows = boxes.fetch(INDEX, moves)
    kept = rows[..., 0] >= 0
    corners = rows[kept][:, 1:]
    assert rows.shape == (COUNT, 12, 5)
    assert (corners >= 0).all()
    assert (corners <= torch.tensor(SIZE[::-1] * 2)).all()
    assert (corners[:, 2:] - corners[:, :2] > 2).all()
    assert (rows[~kept] == torch.tensor([NO_BOX, 0, 0, 0, 0])).all()
    # the same by clipping each box of each tile in numpy
    layout = moves.mosaic.layout(0, INDEX)
    windows = moves.windows(0, INDEX, *SIZE)
    windows = [[0, 0, *SIZE]] * COUNT if windows is None else windows.tolist()
    expected = 0
    for b, (top, left, tall, wide) in enumerate(windows):
        for tile in range(4):
            if not layout.present[b, tile]:
                continue
            dy, dx = layout.offsets[b, tile].tolist()
            for label, x1, y1, x2, y2 in boxes.rows[int(layout.samples[b, tile])].tolist():
                scale = SIZE[1] / wide
                x = np.array([x1 + dx - left, x2 + dx - left]) * scale
                y = np.array([y1 + dy - top, y2 + dy - top]) * (SIZE[0] / tall)
                (w,), (h,) = np.diff(x.clip(0, SIZE[1])), np.diff(y.clip(0, SIZE[0]))
                part = w * h / max(np.ptp(x) * np.ptp(y), 1e-9)
                expected += label >= 0 and w > 2 and h > 2 and part >= 0.1
    assert abs(expected - int(kept.sum())) <= 1  # a box at the very edge of the rule


def test_scale_and_shift_are_those_of_an_affine_map():
    index = torch.arange(3000)
    top, left, tall, wide = jittered_window(2, 0, index, 20, 40, 0.5, 0.1).double().unbind(1)
    factor = 20 / tall
    assert torch.allclose(factor, 40 / wide)
    assert factor.min() >= 0.5
    assert factor.max() <= 1.5
    assert factor.mean().item() == pytest.approx(1.0, abs=0.02)
    shifted_y, shifted_x = (10 - top) * factor / 20 - 0.5, (20 - left) * factor / 40 - 0.5
    for shifted in (shifted_y, shifted_x):  # where the image's center comes to lie
        assert shifted.abs().max() <= 0.1 + 1e-6
        assert shifted.std().item() == pytest.approx(0.2 / 12**0.5, abs=0.004)


def test_masks_follow_and_are_void_where_there_is_no_picture():
    masks = torch.randint(1, 4, (COUNT, 3, 4), generator=torch.Generator().manual_seed(0)).byte()
    masks = masks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    whole = torch.tensor([0.0, 0, *SIZE]).repeat(COUNT, 1)
    moves = GeometricAugmentation(
        1, flip=True, scale_jitter=0.4, shift=0.1, mosaic=Mosaic(1, 0.7, whole, SIZE)
    )
    images = made(moves, (masks * 60)[:, None].repeat(1, 3, 1, 1))[:, 0].long()
    labels = Masks(masks).fetch(INDEX, moves)
    void = labels == IGNORE
    assert void.any()
    assert ((images - labels * 60).abs() <= 2)[~void].float().mean() > 0.8
    assert (images == GRAY)[void].all()
    bare = GeometricAugmentation(1, mosaic=moves.mosaic)
    exact = made(bare, (masks * 60)[:, None].repeat(1, 3, 1, 1))[:, 0].long()
    labels = Masks(masks).fetch(INDEX, bare)
    assert torch.equal(torch.where(labels == IGNORE, GRAY, labels * 60), exact)


def scenes(count=COUNT) -> InMemoryImages:
    images = InMemoryImages(pictures(), Boxes(boxes_in_areas(0), SIZE, areas()))
    return images.take(torch.arange(count))


def batches(images, epoch=0, start=0, **keys) -> list:
    loader = Loader(images, **{**LOADING, "batch_size": 4, **YOLO, **keys})
    return [batch for step in loader.epoch(epoch, start) for batch in step]


def equal(one, other) -> bool:
    tensors = [(b.inputs, b.targets, *b.views) for b in (one, other)]
    return all(map(torch.equal, *tensors))


def test_a_sample_depends_on_its_keys_alone():
    full = batches(scenes(), views=2, hsv_jitter=(0.015, 0.7, 0.4))
    assert not torch.equal(full[0].inputs, full[0].views[0])
    keys = {"views": 2, "hsv_jitter": (0.015, 0.7, 0.4)}
    assert all(map(equal, full[1:], batches(scenes(), start=1, **keys)))
    for rank in range(2):
        shares = batches(scenes(), rank=rank, world_size=2, **keys)
        for batch, share in zip(full, shares, strict=True):
            part = slice(2 * rank, 2 * rank + 2)
            assert torch.equal(batch.inputs[part], share.inputs)
            assert torch.equal(batch.targets[part], share.targets)
            assert torch.equal(batch.views[0][part], share.views[0])
    assert not torch.equal(full[0].inputs, batches(scenes(), epoch=1, **keys)[0].inputs)


def test_views_that_come_again_have_the_same_partners():
    cycle = {"view_cycle": 2, "view_seed": 9}
    first = torch.empty(COUNT, 3, *SIZE)
    for batch in batches(scenes(), 1, **cycle):
        first[batch.indices] = batch.inputs
    for seed in (3, 4):  # of another run
        for batch in batches(scenes(), 3, seed=seed, **cycle):
            assert torch.equal(batch.inputs, first[batch.indices])


def test_mosaics_end_with_their_epochs():
    shapes = [batches(scenes(), epoch, mosaic_epochs=2)[0].targets.shape[1] for epoch in range(4)]
    assert shapes == [12, 12, 3, 3]
    assert equal(
        batches(scenes(), 2, mosaic_epochs=2)[0], batches(scenes(), 2, mosaic_probability=0)[0]
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_single_picture_is_its_own_partner(seed):
    (batch,) = batches(scenes(1), batch_size=1, seed=seed, scale_jitter=0, shift=0)
    assert batch.indices.tolist() == [0]
    boxes = batch.targets[0][batch.targets[0, :, 0] >= 0][:, 1:]
    assert len(boxes) >= 1
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_pictures_without_boxes_make_mosaics_without():
    empty = scenes().take(torch.tensor([4, 9]))
    (batch,) = batches(empty, batch_size=2)
    assert (batch.targets == torch.tensor([NO_BOX, 0, 0, 0, 0])).all()
    assert (batch.inputs != GRAY).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_decoding_processes_change_nothing(tmp_path, monkeypatch, workers):
    monkeypatch.setattr("selfdistill.data.box_folders._IN_MEMORY", 0)
    files = load(
        f"folder:{coco(tmp_path / 'set')}", root=tmp_path, task="detection", val_fraction=0.0
    ).train
    memory = files.load_into_memory()
    assert len(memory.targets.areas.unique(dim=0)) > 1
    for one, other in zip(
        batches(files, batch_size=3, workers=workers), batches(memory, batch_size=3), strict=True
    ):
        assert equal(one, other)


def test_areas_go_with_their_pictures():
    picked = torch.tensor([5, 2])
    taken = scenes().targets.take(picked)
    assert torch.equal(taken.areas, areas()[picked])
    stretched = taken.resized(SIZE, (48, 32))
    assert torch.equal(stretched.areas, areas()[picked] * torch.tensor([2.0, 1, 2, 1]))
    assert Boxes(torch.zeros(2, 1, 5), SIZE).areas.tolist() == [[0, 0, *SIZE]] * 2


def test_pictures_meet_without_a_seam():
    white = torch.full((COUNT, 3, *SIZE), 255, dtype=torch.uint8)
    whole = torch.tensor([0.0, 0, *SIZE]).repeat(COUNT, 1)
    moves = GeometricAugmentation(0, scale_jitter=0.3, mosaic=Mosaic(0, 1.0, whole, SIZE))
    images = made(moves, white)
    assert set(images.unique().tolist()) <= {GRAY, 255}
    whole_of_white = moves._replace(scale_jitter=0.0)
    assert (made(whole_of_white, white) == 255).float().mean() > 0.5
