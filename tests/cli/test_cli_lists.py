"""`methods`, `models` and `taps`."""

import pytest
from command import say

from selfdistill.core import METHODS, options
from selfdistill.recipe.method_docs import plain_paragraphs


def test_methods_have_a_line_each():
    result = say("methods")
    assert result.code == 0
    first_words = [line.split()[0] for line in result.out.splitlines() if line.strip()]
    assert [name for name in METHODS if name not in first_words] == []


def test_a_method_is_explained_with_every_option():
    result = say("methods", "muse").out
    assert "https://arxiv.org/abs/2110.12606" in result
    for option in options(METHODS["muse"]):
        assert f"\n{option} " in result
    assert "add | mul" in result
    assert ".. math" not in result
    assert ":math:" not in result


def test_a_method_without_options():
    assert "It has no options." in say("methods", "ce").out


def test_paragraphs_are_joined_and_equations_kept():
    doc = "One\ntwo :math:`x_1`.\n\n.. math::\n    a = b \\\\\n    + c\n\nafter"
    assert plain_paragraphs(doc) == ["One two x_1.", "    a = b \\\\\n    + c", "after"]
    assert plain_paragraphs(".. math:: L = 1\n\nafter") == ["    L = 1", "after"]


def test_an_equation_after_an_empty_line():
    assert plain_paragraphs(".. math::\n\n    L = 1\n\nafter") == ["    L = 1", "after"]


@pytest.mark.parametrize("pattern", ["cifar/resnet1", "cifar/vgg*", "VGG11_BN"])
def test_models_are_found(pattern):
    result = say("models", pattern)
    assert result.code == 0
    stem = pattern.lower().rstrip("*")
    assert all(stem in line for line in result.out.split())


def test_no_model_is_found():
    result = say("models", "resnt5")
    assert result.code == 2
    assert "did you mean 'resnet" in result.err


def test_taps_stars_the_automatic_choice():
    result = say("taps", "cifar/resnet10_w16", "--image-size", 8, "--channels", 1)
    assert result.code == 0
    stars = [line.split()[1] for line in result.out.splitlines() if line.startswith("*  ")]
    assert stars == ["layer1", "layer2", "layer3", "layer4"]
    assert "128           1 × 1" in result.out


def test_where_a_shorter_network_may_end():
    offer = "a shorter network ends at one: --model cifar/resnet20@layer2\n"
    assert offer in say("taps", "cifar/resnet20").out
    cut = say("taps", "cifar/resnet20@layer2").out
    assert "taken by --taps auto" in cut
    assert "a shorter network" not in cut


def test_taps_shows_everything_by_all():
    few, everything = (say("taps", "cifar/resnet10_w16", *more).out for more in ([], ["--all"]))
    assert "more inside" in few
    assert "more inside" not in everything
    assert len(everything.splitlines()) > len(few.splitlines())


def test_taps_of_a_network_that_cannot_take_the_images():
    result = say("taps", "torchvision/squeezenet1_1", "--image-size", 4)
    assert result.code == 2
    assert "cannot take images of 4×4" in result.err
