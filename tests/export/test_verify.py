"""A file is compared with the method over the whole test set, and a wrong one is told."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from selfdistill.data import ImageData
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.export.extract_predictor import extract_predictor
from selfdistill.export.normalized_input import NormalizedInput
from selfdistill.export.verify import (
    TOLERANCE,
    LogitAgreement,
    verification_batch_size,
    verify_export,
)
from selfdistill.recipe.build_method import build_method

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def resident(count, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return InMemoryImages(pixels, torch.arange(count) % 5)


def data(**parts):
    splits = {"train": resident(8, 0), "val": resident(20, 1), "test": resident(300, 2), **parts}
    fields = {"classes": list("abcde"), "mean": MEAN, "std": STD}
    return ImageData("x", **splits, **fields, crop_padding=0, flip=False, resized_crop=False)


@pytest.fixture
def method(tiny_net, tiny_task):
    return build_method("muse", tiny_net, tiny_task, "stage1,stage2,stage3,stage4", {}).eval()


def test_the_network_itself(method, tiny_task):
    run = NormalizedInput(extract_predictor(method, "exit2"), MEAN, STD).eval()
    verification = verify_export(method, "exit2", run, data(), tiny_task)
    assert (verification.split, verification.images) == ("test", 300)
    assert verification.holds
    pixels = data().test.images.numpy() / np.float32(255)
    scaled = (pixels - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    expected = method.predict(torch.from_numpy(scaled).float())["exit2"].detach()
    allowed = TOLERANCE * max(1, float(expected.abs().max()))
    assert (
        f"at most ({allowed:.1e} allowed), the same class for all of them" in verification.summary
    )
    assert verification.score == pytest.approx(
        float((expected.argmax(1) == data().test.labels).float().mean())
    )


@pytest.mark.parametrize(
    ("parts", "split", "images"),
    [({"test": None}, "val", 20), ({"test": None, "val": None}, "random", 512)],
)
def test_without_test_images(method, tiny_task, parts, split, images):
    run = NormalizedInput(extract_predictor(method, "student"), MEAN, STD).eval()
    verification = verify_export(method, "student", run, data(**parts), tiny_task)
    assert (verification.split, verification.images) == (split, images)
    assert verification.holds
    assert (verification.score is None) == (split == "random")


@pytest.mark.parametrize("fault", [3 * TOLERANCE, float("nan")])
def test_another_network(method, tiny_task, fault):
    network = extract_predictor(method, "student")
    with torch.no_grad():
        network.fc.bias[1] += fault
    verification = verify_export(
        method, "student", NormalizedInput(network, MEAN, STD).eval(), data(), tiny_task
    )
    assert not verification.holds
    assert f"differ by {'nan' if fault != fault else '3.0e-04'} at most" in verification.summary


def test_another_class(method, tiny_task):
    network = extract_predictor(method, "student")
    swapped = nn.Sequential(network, Reversed())
    verification = verify_export(
        method, "student", NormalizedInput(swapped, MEAN, STD).eval(), data(), tiny_task
    )
    assert not verification.holds
    matched = int(re.search(r"the same class for (\d+) of 300", verification.summary)[1])
    assert matched < 150


def test_pixels_are_compared_at_the_size_of_the_images():
    """Dense logits are resized; a quarter of the pixels of one class is another."""
    agreement, scores = LogitAgreement((4, 4)), torch.zeros(2, 2, 2, 2)
    scores[:, 0] = 1
    agreement.update(scores, scores.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert agreement.holds
    assert agreement.summary.endswith("the same class for all pixels")
    file = torch.ones(1, 2, 4, 4)
    file[:, 1] = 0
    file[:, 1, :2, :2] = 3
    agreement.update(scores[:1], file)
    assert not agreement.holds
    assert agreement.summary == (
        "logits differ by 3.0e+00 at most (1.0e-04 allowed), the same class for 44 of 48 pixels"
    )


def test_batches_fit_the_memory():
    assert verification_batch_size(data()) == 256
    large = InMemoryImages(torch.zeros(1, 3, 640, 480, dtype=torch.uint8), torch.zeros(1).long())
    assert verification_batch_size(data(train=large)) == 3


class Reversed(nn.Module):
    def forward(self, x):
        return x.flip(1)
