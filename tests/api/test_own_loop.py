"""A method in somebody else's loop: the README's three lines, and what they promise."""

import copy
import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import selfdistill
import selfdistill.methods  # registers them
from selfdistill.core import METHODS, ConfigError
from selfdistill.models import build

README = Path(__file__).parents[2] / "README.md"


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("cifar/resnet8", num_classes=10)


def pictures(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, 3, 16, 16), torch.arange(n) % 10


def test_the_readme_lines_run_and_teach():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    lines = next(block for block in blocks if "wrap" in block)
    images, labels = pictures()
    scope = {"selfdistill": selfdistill, "torch": torch, "my_network": small()}
    scope |= {"images": images, "labels": labels}
    exec(lines, scope)
    first = scope["loss"].item()
    for _ in range(20):
        scope["optimiser"].zero_grad()
        loss = scope["lesson"](images, labels)
        loss.backward()
        scope["optimiser"].step()
    assert loss.item() < 0.7 * first


@pytest.mark.parametrize("name", list(METHODS))
def test_the_network_is_the_one_that_was_given(name):
    network, (images, labels) = small(), pictures()
    keys, before = list(network.state_dict()), copy.deepcopy(network.state_dict())
    takes = inspect.signature(METHODS[name]).parameters
    company = {"teacher": small()} if "teacher" in takes else {}
    company |= {"peers": [small(1)]} if "peers" in takes else {}
    company |= {"train_labels": labels} if "train_labels" in takes else {}
    lesson = selfdistill.wrap(network, name, example=images[:2], classes=10, **company)
    views = [images.flip(3)] * (METHODS[name].needs.views - 1)
    partners = images.roll(1, 0) if METHODS[name].needs.partners else None
    index = torch.arange(len(images))
    lesson(images, labels, index=index, views=views, partners=partners).backward()
    torch.optim.SGD(lesson.parameters(), lr=0.1).step()
    assert list(network.state_dict()) == keys
    assert not torch.equal(network.state_dict()["fc.weight"], before["fc.weight"])
    network.eval(), lesson.eval()
    assert torch.equal(network(images), lesson.predict(images)["student"])


def test_steps_are_counted_and_saved():
    images, labels = pictures()
    lesson = selfdistill.wrap(small(), "muse", example=images[:2], classes=10, negatives="roll")
    for _ in range(3):
        lesson(images, labels)
    other = selfdistill.wrap(small(), "muse", example=images[:2], classes=10, negatives="roll")
    other.load_state_dict(lesson.state_dict())
    assert int(other.step) == 3
    assert torch.equal(lesson(images, labels), other(images, labels))


def test_evaluation_counts_no_step():
    images, labels = pictures()
    lesson = selfdistill.wrap(small(), "ce", example=images[:2], classes=10).eval()
    lesson(images, labels)
    assert int(lesson.step) == 0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [("muze", {}, "did you mean 'muse'"), ("muse", {"weigth": 1}, "no option 'weigth'")],
)
def test_wrong_words_are_told(name, options, words):
    with pytest.raises(ConfigError, match=words):
        selfdistill.wrap(small(), name, example=pictures()[0][:2], classes=10, **options)


def test_wrong_number_of_classes_is_told():
    with pytest.raises(ConfigError, match="num_classes=7"):
        selfdistill.wrap(small(), "ce", example=pictures()[0][:2], classes=7)
