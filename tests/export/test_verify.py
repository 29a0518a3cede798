"""A file is compared with the method over the whole test set, and a wrong one is told."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from selfdistill.data import ImageData
from selfdistill.data.images import InMemoryImages
from selfdistill.export.deployed import Deployed
from selfdistill.export.network import bare
from selfdistill.export.verify import TOLERANCE, SameLogits, batch_of, compare
from selfdistill.recipe.making import make_method

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def resident(count, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return InMemoryImages(pixels, torch.arange(count) % 5)


def data(**parts):
    shown = {"train": resident(8, 0), "val": resident(20, 1), "test": resident(300, 2), **parts}
    about = {"classes": list("abcde"), "mean": MEAN, "std": STD}
    return ImageData("x", **shown, **about, crop_padding=0, flip=False, resized_crop=False)


@pytest.fixture
def method(tiny_net, tiny_task):
    return make_method("muse", tiny_net, tiny_task, "stage1,stage2,stage3,stage4", {}).eval()


def test_the_network_itself(method, tiny_task):
    run = Deployed(bare(method, "exit2"), MEAN, STD).eval()
    it = compare(method, "exit2", run, data(), tiny_task)
    assert (it.part, it.images) == ("test", 300)
    assert it.holds
    pixels = data().test.images.numpy() / np.float32(255)
    scaled = (pixels - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    want = method.predict(torch.from_numpy(scaled).float())["exit2"].detach()
    allowed = TOLERANCE * max(1, float(want.abs().max()))
    assert f"at most ({allowed:.1e} allowed), the same class for all of them" in it.told
    assert it.score == pytest.approx(float((want.argmax(1) == data().test.labels).float().mean()))


@pytest.mark.parametrize(
    ("parts", "part", "images"),
    [({"test": None}, "val", 20), ({"test": None, "val": None}, "random", 512)],
)
def test_without_test_images(method, tiny_task, parts, part, images):
    run = Deployed(bare(method, "student"), MEAN, STD).eval()
    it = compare(method, "student", run, data(**parts), tiny_task)
    assert (it.part, it.images) == (part, images)
    assert it.holds
    assert (it.score is None) == (part == "random")


@pytest.mark.parametrize("fault", [3 * TOLERANCE, float("nan")])
def test_another_network(method, tiny_task, fault):
    taken = bare(method, "student")
    with torch.no_grad():
        taken.fc.bias[1] += fault
    it = compare(method, "student", Deployed(taken, MEAN, STD).eval(), data(), tiny_task)
    assert not it.holds
    assert f"differ by {'nan' if fault != fault else '3.0e-04'} at most" in it.told


def test_another_class(method, tiny_task):
    taken = bare(method, "student")
    swapped = nn.Sequential(taken, Reversed())
    it = compare(method, "student", Deployed(swapped, MEAN, STD).eval(), data(), tiny_task)
    assert not it.holds
    same = int(re.search(r"the same class for (\d+) of 300", it.told)[1])
    assert same < 150


def test_pixels_are_compared_where_they_are_wanted():
    """Scores of cells are enlarged; a quarter of the pixels of one class is another."""
    judge, scores = SameLogits((4, 4)), torch.zeros(2, 2, 2, 2)
    scores[:, 0] = 1
    judge.update(scores, scores.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert judge.holds
    assert judge.told.endswith("the same class for all pixels")
    file = torch.ones(1, 2, 4, 4)
    file[:, 1] = 0
    file[:, 1, :2, :2] = 3
    judge.update(scores[:1], file)
    assert not judge.holds
    assert judge.told == (
        "logits differ by 3.0e+00 at most (1.0e-04 allowed), the same class for 44 of 48 pixels"
    )


def test_batches_fit_the_memory():
    assert batch_of(data()) == 256
    large = InMemoryImages(torch.zeros(1, 3, 640, 480, dtype=torch.uint8), torch.zeros(1))
    assert batch_of(data(train=large)) == 3


class Reversed(nn.Module):
    def forward(self, x):
        return x.flip(1)
