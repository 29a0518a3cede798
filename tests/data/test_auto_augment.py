"""RandAugment and TrivialAugment against torchvision's, and their draws."""

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode, RandAugment, TrivialAugmentWide

from selfdistill.core import IGNORE
from selfdistill.data import InMemoryImages, Loader
from selfdistill.data.auto_augment import BINS, OPERATIONS, SIGNED, AutoAugment, Draw, apply
from selfdistill.data.targets import Masks

NAMES = {
    "identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX",
    "translate_y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness", "color": "Color",
    "contrast": "Contrast", "sharpness": "Sharpness", "posterize": "Posterize",
    "solarize": "Solarize", "auto_contrast": "AutoContrast", "equalize": "Equalize",
}  # fmt: skip
TORCHVISION = {"randaugment": RandAugment(), "trivial": TrivialAugmentWide()}


def images(channels=3, count=5, side=24):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (count, channels, side, side + 8), generator=generator)
    return (0.6 * x + torch.linspace(0, 90, side + 8)).byte()


def reference(policy, image, draw):
    """What torchvision's class makes of an image by the same operation and strength."""
    made = TORCHVISION[policy]
    space, signed = made._AUGMENTATION_SPACE[NAMES[draw.operation]]
    magnitudes = space(BINS, *image.shape[-2:])
    magnitude = 0.0 if magnitudes is None else float(magnitudes[draw.strength])
    magnitude *= draw.sign if signed else 1
    bilinear = {"interpolation": InterpolationMode.BILINEAR, "fill": {}}
    return made._apply_image_or_video_transform(image, NAMES[draw.operation], magnitude, **bilinear)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", ["randaugment", "trivial"])
def test_operations_equal_torchvisions(policy, channels):
    auto, x = AutoAugment(policy, 0), images(channels)
    for operation in OPERATIONS:
        for strength in (0, 1, 9, 17, 30):
            for sign in (-1, 1) if strength else (1,):
                draw = Draw(operation, strength, sign)
                got = apply(x, operation, auto.magnitude(draw, 24, 32))
                assert torch.equal(got, reference(policy, x, draw)), draw


def test_no_operation_is_missing():
    assert set(NAMES) == set(OPERATIONS)
    for made in TORCHVISION.values():
        assert set(made._AUGMENTATION_SPACE) == set(NAMES.values())


@pytest.mark.parametrize("policy", ["randaugment", "trivial"])
def test_a_batch_is_its_samples_by_themselves(policy):
    auto, x, index = AutoAugment(policy, 3), images(), torch.tensor([4, 1, 7, 0, 9])
    whole = auto.images(x, 2, index)
    assert whole.dtype == torch.uint8
    assert not torch.equal(whole, x)
    for i in range(5):
        alone = auto.images(x[i : i + 1], 2, index[i : i + 1])[0]
        assert torch.equal(whole[i], alone)
    assert not torch.equal(whole, auto.images(x, 3, index))
    assert not torch.equal(whole, auto.images(x, 2, index, view=1))


@pytest.mark.parametrize("policy", ["randaugment", "trivial"])
def test_samples_on_the_host_are_not_asked_of_the_device(policy):
    x, index = images(), torch.tensor([4, 1, 7, 0, 9])
    told = AutoAugment(policy, 3, samples=index)
    assert torch.equal(told.images(x, 2, index), AutoAugment(policy, 3).images(x, 2, index))
    with pytest.raises(NotImplementedError, match="meta"):
        AutoAugment(policy, 3).draws(2, index.to("meta"), 0)
    assert told.draws(2, index.to("meta"), 0) == told.draws(2, index, 0)
    assert told.images(x.to("meta"), 2, index.to("meta")).shape == x.shape


@pytest.mark.parametrize("masks", [False, True])
def test_a_loader_tells_its_samples(masks, monkeypatch):
    told = []
    draws = AutoAugment.draws

    def watch(self, epoch, index, view):
        told.append(self.samples)
        assert torch.equal(self.samples, index)
        return draws(self, epoch, index, view)

    monkeypatch.setattr(AutoAugment, "draws", watch)
    pixels = torch.zeros(8, 3, 6, 6, dtype=torch.uint8)
    targets = Masks(torch.zeros(8, 6, 6, dtype=torch.uint8)) if masks else torch.arange(8) % 2
    loader = Loader(
        InMemoryImages(pixels, targets), batch_size=4, seed=0, mean=(0.5,) * 3, std=(0.5,) * 3,
        crop_padding=0, flip=False, auto_augment=AutoAugment("trivial", 0), views=2,
    )  # fmt: skip
    assert len(list(loader.epoch(0))) == 2
    assert len(told) == 2 * (2 + masks)  # of each view, and of the masks
    assert {samples.device.type for samples in told} == {"cpu"}


def test_rounds_are_composed():
    auto, x, index = (
        AutoAugment("randaugment", 0, operations=3, strength=20),
        images(),
        torch.arange(5),
    )
    want = x
    rounds = auto.draws(1, index, 0)
    assert len(rounds) == 3
    for draws in rounds:
        want = torch.stack(
            [reference("randaugment", i, d) for i, d in zip(want, draws, strict=True)]
        )
    assert torch.equal(auto.images(x, 1, index), want)


def test_operations_strengths_and_signs_are_even():
    draws = AutoAugment("trivial", 0).draws(0, torch.arange(20_000), 0)[0]
    for values, count in (
        ([d.operation for d in draws], len(OPERATIONS)),
        ([d.strength for d in draws], BINS),
        ([d.sign for d in draws], 2),
    ):
        counts = torch.tensor([values.count(value) for value in set(values)]).float()
        assert len(counts) == count
        expected = len(draws) / count
        # chi-squared, five deviations
        assert ((counts - expected).square() / expected).sum() < count + 5 * (2 * count) ** 0.5


def test_frames_of_a_clip_are_changed_alike():
    auto, x, index = AutoAugment("trivial", 5), images(count=8), torch.arange(2)
    clips = x.view(2, 4, 3, 24, 32).transpose(1, 2)
    changed = auto.images(clips, 0, index)
    assert changed.shape == clips.shape
    for frame in range(4):
        alone = auto.images(clips[:, :, frame].contiguous(), 0, index)
        assert torch.equal(changed[:, :, frame], alone)


def test_masks_move_with_their_images():
    side, index = 32, torch.arange(60)
    masks = torch.zeros(60, side, side, dtype=torch.uint8)
    masks[:, 8:20, 5:25] = 1
    auto = AutoAugment("trivial", 0)
    moved = auto.masks(masks, 0, index)
    shown = auto.images((masks[:, None] * 200 + 50).expand(-1, 3, -1, -1).contiguous(), 0, index)
    draws = auto.draws(0, index, 0)[0]
    seen = 0
    for mask, image, before, draw in zip(moved, shown, masks, draws, strict=True):
        if draw.operation not in SIGNED:
            assert torch.equal(mask, before)
            continue
        seen += draw.strength > 3
        inside = mask != IGNORE
        agreeing = (image[0] > 150) == (mask == 1)
        assert agreeing[inside].float().mean() > 0.95, draw
        assert (image[0][~inside] <= 50).float().mean() > 0.9 if (~inside).any() else True
        assert set(mask.unique().tolist()) <= {0, 1, IGNORE}
    assert seen > 10
