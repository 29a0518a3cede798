"""Mixup, CutMix and random erasing: closed forms, distributions, and keys."""

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from selfdistill.data.erasing import RATIO, SCALE, erased_boxes, random_erasing
from selfdistill.data.mixing import Mixing

X = torch.randn(6, 3, 16, 20, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
INDEX = torch.tensor([3, 11, 8, 40, 2, 5])
K = 4


def test_mixup_is_the_sum_of_two_images():
    mixing = Mixing(0, K, mixup=0.7)
    mixed, targets = mixing.images(X, 1, INDEX), mixing.labels(LABELS, 1, INDEX, 16, 20)
    partners = mixing.partners(1, INDEX)
    assert sorted(partners.tolist()) == list(range(6))
    for i, j in enumerate(partners.tolist()):
        ratio = mixing.weights(1, INDEX, 16, 20)[1][i]
        torch.testing.assert_close(mixed[i], ratio * X[i] + (1 - ratio) * X[j])
        want = torch.zeros(K)
        want[LABELS[i]] += ratio
        want[LABELS[j]] += 1 - ratio
        torch.testing.assert_close(targets[i], want)


def test_cutmix_counts_the_pixels_of_each():
    mixing = Mixing(0, K, cutmix=1.0)
    index = torch.arange(200)
    x = torch.arange(200.0)[:, None, None, None].expand(-1, 1, 16, 20)
    mixed, partners = mixing.images(x, 0, index), mixing.partners(0, index)
    targets = mixing.labels(index % K, 0, index, 16, 20)
    cut = 0
    for i, j in enumerate(partners.tolist()):
        own = (mixed[i, 0] == i).float().mean()
        assert torch.equal((mixed[i, 0] == i) | (mixed[i, 0] == j), torch.ones(16, 20).bool())
        inside = (mixed[i, 0] != i).nonzero()
        if i != j and len(inside):
            low, high = inside.min(0)[0], inside.max(0)[0]
            assert len(inside) == (high - low + 1).prod()  # one rectangle
            cut += 1
        want = own * F.one_hot(torch.tensor(i % K), K) + (1 - own) * F.one_hot(
            torch.tensor(j % K), K
        )
        torch.testing.assert_close(
            targets[i], want.float() if i != j else F.one_hot(torch.tensor(i % K), K).float()
        )
    assert cut > 150


def test_the_loss_of_mixtures_is_the_mixture_of_losses():
    mixing, logits = Mixing(0, K, mixup=1.0), torch.randn(6, K)
    targets, partners = mixing.labels(LABELS, 0, INDEX, 16, 20), mixing.partners(0, INDEX)
    ratio = mixing.weights(0, INDEX, 16, 20)[1]
    each = [F.cross_entropy(logits, y, reduction="none") for y in (LABELS, LABELS[partners])]
    want = (ratio * each[0] + (1 - ratio) * each[1]).mean()
    torch.testing.assert_close(F.cross_entropy(logits, targets), want)


@pytest.mark.parametrize("concentration", [0.2, 1.0])
def test_ratios_are_of_the_beta_distribution(concentration):
    ratio = Mixing(0, K, mixup=concentration).weights(0, torch.arange(4000), 2, 2)[1]
    distribution = stats.beta(concentration, concentration)
    assert stats.kstest(ratio.double().numpy(), distribution.cdf).pvalue > 1e-4


def test_both_kinds_are_even():
    mixing = Mixing(0, K, mixup=0.2, cutmix=1.0)
    cut = mixing.cut(0, torch.arange(4000))
    assert abs(cut.float().mean() - 0.5) < 0.04
    assert not Mixing(0, K, mixup=0.2).cut(0, INDEX).any()
    assert Mixing(0, K, cutmix=0.2).cut(0, INDEX).all()
    assert not Mixing(0, K).active


def test_frames_of_a_clip_are_mixed_alike():
    mixing = Mixing(2, K, mixup=0.5, cutmix=1.0)
    clips = X[:, :, None].expand(-1, -1, 4, -1, -1)
    mixed = mixing.images(clips, 0, INDEX)
    for frame in range(4):
        assert torch.equal(mixed[:, :, frame], mixing.images(X, 0, INDEX))


def test_a_rectangle_is_erased():
    index = torch.arange(300)
    x = torch.ones(300, 2, 24, 24)
    erased = random_erasing(x, 0.5, 0, 0, index)
    count = 0
    for image in erased:
        inside = (image[0] == 0).nonzero()
        assert torch.equal(image[0], image[1])
        if len(inside):
            height, width = inside.max(0)[0] - inside.min(0)[0] + 1
            assert len(inside) == height * width
            assert SCALE[0] * 0.5 < height * width / 576 < SCALE[1] * 1.2
            assert RATIO[0] * 0.6 < width / height < RATIO[1] * 1.6
            count += 1
    assert abs(count / 300 - 0.5) < 0.15
    assert random_erasing(x, 0.0, 0, 0, index) is x


def test_the_draw_of_a_rectangle_is_its_samples_own():
    boxes, whether = erased_boxes(0.5, 0, 3, INDEX, 32, 32)
    for i in range(6):
        box, each = erased_boxes(0.5, 0, 3, INDEX[i : i + 1], 32, 32)
        assert torch.equal(box[0], boxes[i])
        assert each[0] == whether[i]
    assert not torch.equal(boxes, erased_boxes(0.5, 0, 4, INDEX, 32, 32)[0])


def test_areas_are_even():
    boxes, _ = erased_boxes(1.0, 0, 0, torch.arange(3000), 224, 224)
    area = (boxes[:, 2] * boxes[:, 3]).double() / 224**2
    uniform = stats.uniform(SCALE[0], SCALE[1] - SCALE[0])
    assert stats.kstest(area.numpy(), uniform.cdf).pvalue > 1e-5
