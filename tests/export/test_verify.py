"""A file is compared with the method over the whole test set, and a wrong one is told."""

import numpy as np
import pytest
import torch
from torch import nn

from selfdistill.data import ImageData
from selfdistill.data.images import Resident
from selfdistill.export.deployed import Deployed
from selfdistill.export.network import bare
from selfdistill.export.verify import TOLERANCE, compare
from selfdistill.recipe.making import make_method

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def resident(count, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Resident(pixels, torch.arange(count) % 5)


def data(**parts):
    shown = {"train": resident(8, 0), "val": resident(20, 1), "test": resident(300, 2), **parts}
    about = {"classes": list("abcde"), "mean": MEAN, "std": STD}
    return ImageData("x", **shown, **about, crop=0, flip=False, resized_crop=False)


@pytest.fixture
def method(tiny_net, tiny_task):
    return make_method("muse", tiny_net, tiny_task, "stage1,stage2,stage3,stage4", {}).eval()


def test_the_network_itself(method):
    run = Deployed(bare(method, "exit2"), MEAN, STD).eval()
    it = compare(method, "exit2", run, data())
    assert (it.part, it.images, it.agree) == ("test", 300, 300)
    assert 0 <= it.difference < it.allowed
    assert it.holds
    pixels = data().test.images.numpy() / np.float32(255)
    scaled = (pixels - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    want = method.predict(torch.from_numpy(scaled).float())["exit2"].detach()
    assert it.largest == pytest.approx(float(want.abs().max()), rel=1e-4)
    assert it.right == int((want.argmax(1) == data().test.labels).sum())


@pytest.mark.parametrize(
    ("parts", "part", "images"),
    [({"test": None}, "val", 20), ({"test": None, "val": None}, "random", 512)],
)
def test_without_test_images(method, parts, part, images):
    run = Deployed(bare(method, "student"), MEAN, STD).eval()
    it = compare(method, "student", run, data(**parts))
    assert (it.part, it.images) == (part, images)
    assert it.holds
    assert (it.right is None) == (part == "random")


@pytest.mark.parametrize("fault", [3 * TOLERANCE, float("nan")])
def test_another_network(method, fault):
    taken = bare(method, "student")
    with torch.no_grad():
        taken.fc.bias[1] += fault
    it = compare(method, "student", Deployed(taken, MEAN, STD).eval(), data())
    assert not it.holds
    assert it.difference == pytest.approx(fault, rel=0.1, nan_ok=True)


def test_another_class(method):
    taken = bare(method, "student")
    swapped = nn.Sequential(taken, Reversed())
    it = compare(method, "student", Deployed(swapped, MEAN, STD).eval(), data())
    assert it.agree < 150
    assert not it.holds


class Reversed(nn.Module):
    def forward(self, x):
        return x.flip(1)
