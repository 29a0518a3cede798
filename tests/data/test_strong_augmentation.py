"""Batches with all augmentation at once: the same for any number of workers, and from any step."""

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.data import InMemoryImages, Loader
from selfdistill.data.auto_augment import AutoAugment
from selfdistill.data.images import ImageFiles
from selfdistill.data.mixing import Mixing

LABELS = torch.arange(12) % 3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(12)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(path)
    return paths


def loader(images, workers=0, policy="trivial", views=1, **keys):
    return Loader(
        images, batch_size=4, seed=3, mean=(0.5,) * 3, std=(0.3,) * 3, crop_padding=2, flip=True,
        auto_augment=AutoAugment(policy, 3), erase_probability=0.5, color_jitter=0.3, views=views,
        mixing=Mixing(3, 3, 0.4, 1.0), workers=workers, **keys,
    )  # fmt: skip


def batches(made, epoch=1, start=0):
    return [batch for group in made.epoch(epoch, start) for batch in group]


def same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("policy", ["randaugment", "trivial"])
def test_workers_change_nothing(files, policy):
    images = ImageFiles(files, LABELS, (16, 16))
    alone = batches(loader(images, policy=policy))
    assert alone[0].targets.shape == (4, 3)
    torch.testing.assert_close(alone[0].targets.sum(1), torch.ones(4))
    for workers in (1, 3):
        same(batches(loader(images, workers, policy)), alone)
    memory = images.load_into_memory()
    same(batches(loader(memory, policy=policy)), alone)


def test_a_resume_sees_the_same_images(files):
    made = loader(ImageFiles(files, LABELS, (16, 16)).load_into_memory(), views=2)
    same(batches(made, start=2), batches(made)[2:])
    assert batches(made)[0].views[0].shape == (4, 3, 16, 16)


def test_views_are_mixed_alike():
    images = InMemoryImages(
        torch.arange(12).byte()[:, None, None, None].expand(-1, 3, 8, 8), LABELS
    )
    plain = Loader(
        images, batch_size=4, seed=3, mean=(0.0,) * 3, std=(1.0,) * 3, crop_padding=0, flip=False,
        mixing=Mixing(3, 3, 0.4, 1.0), views=2,
    )  # fmt: skip
    for batch in batches(plain):
        assert torch.equal(batch.inputs, batch.views[0])


def test_channels_last_is_kept(files):
    images = ImageFiles(files, LABELS, (16, 16)).load_into_memory()
    last = batches(loader(images, channels_last=True))
    assert last[0].inputs.is_contiguous(memory_format=torch.channels_last)
    same(last, batches(loader(images)))
