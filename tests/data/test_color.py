"""Random colors against torchvision and colorsys, and their keys."""

import colorsys

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from selfdistill.core import keyed_random
from selfdistill.data import InMemoryImages, Loader
from selfdistill.data.color import color_jitter, hsv_jitter

IMAGES = torch.randint(0, 256, (6, 3, 9, 7), generator=torch.Generator().manual_seed(0)).byte()
INDEX = torch.arange(6)


def factors(strength, *keys, view=0):
    draws = torch.arange(3)[:, None]
    draw = keyed_random.uniform(keyed_random.purpose("color"), *keys, INDEX, view, draws)
    return (1 + strength * (2 * draw - 1)).T.tolist()


def test_equals_torchvision():
    changed = color_jitter(IMAGES, 0.5, 3, 1, INDEX)
    for image, own, (bright, contrast, saturation) in zip(
        IMAGES, changed, factors(0.5, 3, 1), strict=True
    ):
        want = reference.adjust_brightness(image.float() / 255, bright)
        want = reference.adjust_saturation(reference.adjust_contrast(want, contrast), saturation)
        assert (own - 255 * want).abs().max() < 0.6  # of the rounding, and of its luma's 0.2989


def test_factors_are_uniform_about_one():
    gray = torch.full((4000, 1, 1, 1), 100, dtype=torch.uint8)
    changed = color_jitter(gray, 0.4, 0, 0, torch.arange(4000)).flatten().float() / 100
    assert changed.min() >= 0.6
    assert changed.max() <= 1.4
    assert changed.mean().item() == pytest.approx(1.0, abs=0.015)
    assert changed.std().item() == pytest.approx(0.8 / 12**0.5, abs=0.01)


def test_frames_of_a_clip_are_changed_alike():
    still = IMAGES[:, :, None].expand(-1, -1, 5, -1, -1)
    changed = color_jitter(still, 0.4, 0, 0, INDEX)
    assert torch.equal(changed, changed[:, :, :1].expand_as(changed))
    assert torch.equal(changed[:, :, 0], color_jitter(IMAGES, 0.4, 0, 0, INDEX))


def test_nothing_at_strength_zero():
    assert color_jitter(IMAGES, 0.0, 0, 0, INDEX) is IMAGES


def test_views_differ_and_a_sample_does_not_depend_on_its_batch():
    options = {"batch_size": 6, "seed": 0, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    options |= {"crop_padding": 0, "flip": False, "views": 2, "color_jitter": 0.5}
    ((batch,),) = Loader(InMemoryImages(IMAGES, INDEX), **options).epoch(0)
    assert not torch.equal(batch.inputs, batch.views[0])
    for place, sample in enumerate(batch.indices.tolist()):
        alone = color_jitter(IMAGES[[sample]], 0.5, 0, 0, torch.tensor([sample]))
        assert torch.equal(batch.inputs[place], alone[0].float())


GAINS = (0.3, 0.7, 0.4)


def hsv_factors(*keys):
    draws = torch.arange(3)[:, None]
    draw = keyed_random.uniform(keyed_random.purpose("hsv"), *keys, INDEX, 0, draws)
    return (1 + torch.tensor(GAINS)[:, None] * (2 * draw - 1)).T.tolist()


def test_hue_saturation_and_value_are_those_of_colorsys():
    corners = torch.cartesian_prod(*[torch.tensor([0, 1, 128, 255])] * 3).byte()  # (64, 3)
    images = torch.cat([IMAGES.flatten(2), corners.T.expand(6, 3, 64)], 2)[..., None]
    changed = hsv_jitter(images, GAINS, 3, 1, INDEX)
    for image, own, (hue, saturation, value) in zip(
        images, changed, hsv_factors(3, 1), strict=True
    ):
        for pixel, result in zip(image[..., 0].T.tolist(), own[..., 0].T.tolist(), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(channel / 255 for channel in pixel))
            want = colorsys.hsv_to_rgb(h * hue % 1, min(s * saturation, 1), min(v * value, 1))
            assert result == pytest.approx([255 * channel for channel in want], abs=0.51)


def test_gains_of_nothing_change_nothing():
    assert hsv_jitter(IMAGES, (), 0, 0, INDEX) is IMAGES
    assert hsv_jitter(IMAGES, (0.0, 0.0, 0.0), 0, 0, INDEX) is IMAGES
    gray = IMAGES[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(hsv_jitter(gray, (0.5, 0.9, 0.0), 0, 0, INDEX), gray)


def test_hsv_of_the_frames_of_a_clip_is_changed_alike():
    still = IMAGES[:, :, None].expand(-1, -1, 5, -1, -1)
    changed = hsv_jitter(still, GAINS, 0, 0, INDEX)
    assert torch.equal(changed[:, :, 3], hsv_jitter(IMAGES, GAINS, 0, 0, INDEX))
    assert not torch.equal(changed[:, :, 0], IMAGES)
    assert torch.equal(hsv_jitter(IMAGES[[4]], GAINS, 0, 0, INDEX[[4]])[0], changed[4, :, 0])
