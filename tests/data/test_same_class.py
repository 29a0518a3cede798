"""Partners: of the same class, uniform, and a function of (seed, epoch, image)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from selfdistill.data.same_class import SameClassSampler

LABELS = torch.tensor([2, 0, 2, 1, 0, 2, 2, 4, 0, 4])  # one image of class 1, none of class 3


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=50),
    st.integers(0, 2**40),
    st.integers(0, 300),
)
def test_every_partner_has_the_label(labels, seed, epoch):
    labels = torch.tensor(labels)
    partner = SameClassSampler(labels, seed).draw(epoch, torch.arange(len(labels)))
    assert torch.equal(labels[partner], labels)


def draws(seed: int, epochs: int = 2000) -> torch.Tensor:
    partners, index = SameClassSampler(LABELS, seed), torch.arange(len(LABELS))
    return torch.stack([partners.draw(epoch, index) for epoch in range(epochs)])


def test_every_image_of_the_class_is_as_likely():
    drawn = draws(0)
    for image, label in enumerate(LABELS):
        counts = torch.bincount(drawn[:, image], minlength=len(LABELS))[label == LABELS]
        assert counts.sum() == len(drawn)
        assert len(counts) == 1 or chisquare(counts.numpy()).pvalue > 1e-3


def test_images_of_a_class_draw_apart():
    first, second = draws(1)[:, [0, 2]].T  # two images of the class with four
    pairs = torch.bincount(4 * first.unique(return_inverse=True)[1]
                           + second.unique(return_inverse=True)[1], minlength=16)  # fmt: skip
    assert chisquare(pairs.numpy()).pvalue > 1e-3


def test_the_only_image_of_its_class_is_its_own_partner():
    assert set(draws(0, 50)[:, 3].tolist()) == {3}


def test_a_draw_knows_nothing_of_the_others():
    partners = SameClassSampler(LABELS, 5)
    full = partners.draw(3, torch.arange(10))
    for image in range(10):
        assert partners.draw(3, torch.tensor([image])) == full[image]
    shaped = partners.draw(3, torch.arange(10).view(5, 2))
    assert torch.equal(shaped, full.view(5, 2))


@pytest.mark.parametrize("key", [{"seed": 1}, {"epoch": 1}])
def test_seed_and_epoch_change_the_draw(key):
    labels, index = torch.zeros(100, dtype=torch.int64), torch.arange(100)
    first = SameClassSampler(labels, 0).draw(0, index)
    second = SameClassSampler(labels, key.get("seed", 0)).draw(key.get("epoch", 0), index)
    assert (first == second).sum() < 20
