import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor
from torchvision.transforms import v2

from selfdistill.data import augment

INDEX = torch.tensor([3, 14, 15, 92, 65])
sides = st.integers(3, 9)
keys = st.integers(0, 2**31)


def pictures(count: int = 5, channels: int = 3, height: int = 8, width: int = 6) -> Tensor:
    shape = (count, channels, height, width)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@settings(max_examples=25, deadline=None)
@given(sides, sides, st.integers(1, 4), keys)
def test_crop_equals_a_slice_of_numpy_pad(height, width, padding, seed):
    images = pictures(height=height, width=width)
    result = augment.random_crop(images, padding, seed, 1, INDEX)
    tops, lefts = augment.crop_offsets(padding, seed, 1, INDEX)
    around = ((0, 0), (padding, padding), (padding, padding))
    for image, got, top, left in zip(images, result, tops.tolist(), lefts.tolist(), strict=True):
        want = np.pad(image, around)[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(got, want)


def test_no_padding_leaves_the_images():
    images = pictures()
    assert augment.random_crop(images, 0, 0, 0, INDEX) is images


@settings(max_examples=25, deadline=None)
@given(sides, keys)
def test_flip_equals_numpy(width, seed):
    images = pictures(width=width)
    result = augment.random_flip(images, seed, 0, INDEX)
    which = augment.flip_mask(seed, 0, INDEX).tolist()
    for image, got, mirrored in zip(images, result, which, strict=True):
        np.testing.assert_array_equal(got, np.flip(image.numpy(), 2) if mirrored else image)


def test_offsets_and_flips_are_uniform():
    index = torch.arange(20_000)
    tops, lefts = augment.crop_offsets(4, 0, 0, index)
    for offsets in (tops, lefts):
        counts = torch.bincount(offsets, minlength=9)
        assert len(counts) == 9
        assert (counts / 20_000 - 1 / 9).abs().max() < 0.01
    assert abs(torch.corrcoef(torch.stack([tops, lefts]).float())[0, 1]) < 0.03
    assert abs(augment.flip_mask(0, 0, index).float().mean() - 0.5) < 0.015


@pytest.mark.parametrize("changed", [{"seed": 1}, {"epoch": 1}, {"view": 1}])
def test_every_key_counts(changed):
    index = torch.arange(64)
    base = {"seed": 0, "epoch": 0, "view": 0}
    drawn, other = base | {"index": index}, base | changed | {"index": index}
    assert not torch.equal(augment.crop_offsets(4, **drawn)[0], augment.crop_offsets(4, **other)[0])
    assert not torch.equal(augment.flip_mask(**drawn), augment.flip_mask(**other))
    boxes = [augment.resized_crop_box(height=50, width=50, **keys) for keys in (drawn, other)]
    assert not torch.equal(*boxes)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)))
def test_blind_to_the_batch(order):
    images, order = pictures(), torch.tensor(order)

    def both(x, index):
        return augment.random_flip(augment.random_crop(x, 2, 0, 0, index), 0, 0, index)

    assert torch.equal(both(images, INDEX)[order], both(images[order], INDEX[order]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalize_equals_numpy(layout):
    images, mean, std = pictures(), (0.1, 0.5, 0.7), (0.2, 0.3, 0.4)
    column = (3, 1, 1)
    want = (images.numpy() / 255 - np.reshape(mean, column)) / np.reshape(std, column)
    result = augment.normalize(images.contiguous(memory_format=layout), mean, std)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=layout)
    np.testing.assert_allclose(result, want, rtol=0, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 40), st.integers(5, 40), keys)
def test_box_lies_inside_and_keeps_its_range(height, width, seed):
    boxes = augment.resized_crop_box(seed, 0, torch.arange(50), height, width)
    top, left, h, w = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert (h > 0).all()
    assert (w > 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


def test_box_area_is_distributed_as_in_torchvision():
    ours = augment.resized_crop_box(0, 0, torch.arange(2000), 100, 120).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image, draw = torch.empty(3, 100, 120), v2.RandomResizedCrop(8).make_params
        reference = [draw([image]) for _ in range(2000)]
    for result, want in (
        (ours[:, 2] * ours[:, 3], [p["height"] * p["width"] for p in reference]),
        (ours[:, 3] / ours[:, 2], [p["width"] / p["height"] for p in reference]),
        (ours[:, 0], [p["top"] for p in reference]),
    ):
        assert kstest(result.numpy(), want).pvalue > 1e-3


@pytest.mark.parametrize("size", [(4, 100), (90, 6), (7, 7)])
def test_box_falls_back_to_the_center_as_in_torchvision(size):
    scale = (30.0, 40.0)  # nothing fits
    want = v2.RandomResizedCrop(8, scale=scale).make_params([torch.empty(3, *size)])
    result = augment.resized_crop_box(0, 0, INDEX, *size, scale=scale)
    names = ("top", "left", "height", "width")
    assert result.tolist() == [[want[name] for name in names]] * len(INDEX)


def test_resized_crop_equals_torchvision():
    images = pictures(height=16, width=12)
    boxes = augment.resized_crop_box(5, 0, INDEX, 16, 12)
    result = augment.resized_crop(images, boxes)
    for image, got, box in zip(images, result, boxes.tolist(), strict=True):
        want = v2.functional.resized_crop(image.float(), *box, [16, 12], antialias=False)
        torch.testing.assert_close(got.float(), want, atol=0.51, rtol=0)  # ours is rounded to bytes


def test_resized_crop_of_the_whole_changes_nothing():
    images = pictures()
    boxes = torch.tensor([[0, 0, 8, 6]]).expand(5, -1)
    assert torch.equal(augment.resized_crop(images, boxes), images)
