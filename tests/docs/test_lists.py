"""Lists of methods in the guides are those that the classes declare."""

import inspect
import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import selfdistill.methods  # noqa: F401  registers them
from selfdistill.core import METHODS, ConfigError
from selfdistill.recipe.build_method import build_method, unsupported_reason
from selfdistill.tasks import Classification, make_task

DOCS = Path(__file__).parents[2] / "docs"


def named(page: str, before: str) -> set[str]:
    """The methods in the first parenthesis behind these words."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(before)[2]
    inside = re.search(r"\((.*?)\)", text)
    assert inside, before
    return {*re.findall(r"`([\w-]+)`", inside[1])} & {*METHODS}


def declaring(holds) -> set[str]:
    return {name for name in METHODS if holds(METHODS[name])}


@pytest.mark.parametrize(
    ("page", "before", "holds"),
    [
        (
            "guide/own-network.md",
            "Methods that compare stage by stage",
            lambda cls: cls.default_taps == "stages",
        ),
        (
            "guide/loops.md",
            "those that remember every image",
            lambda cls: "train_labels" in inspect.signature(cls).parameters,
        ),
        ("guide/loops.md", "those that compare views", lambda cls: cls.needs.views > 1),
        ("guide/loops.md", "compare images of a class", lambda cls: cls.needs.same_class),
        ("guide/loops.md", "learns from such images alone", lambda cls: cls.needs.unlabeled),
        (
            "concepts/teachers-and-peers.md",
            "A method that reads the teacher's scores",
            lambda cls: cls.needs.teacher_scores,
        ),
    ],
)
def test_a_list_has_every_method_that_declares_it(page, before, holds):
    listed, declared = named(page, before), declaring(holds)
    assert declared <= listed, declared - listed
    assert listed - declared <= {"srrl"}, listed - declared  # by an option


class Branching(nn.Sequential):
    """A network whose way depends on the values of the image."""

    def __init__(self):
        channels = (3, 4, 6, 8)
        stages = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in itertools.pairwise(channels)
        ]
        super().__init__(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, x):
        return super().forward(x if x.sum() < 1e9 else -x)


def cuts(name) -> bool:
    takes = inspect.signature(METHODS[name]).parameters
    given = {
        "teacher": Branching(),
        "peers": [Branching()],
        "train_labels": torch.arange(20) % 5,
    }
    task = make_task("classification", "abcde", (3, 32, 32))
    try:
        build_method(name, Branching(), task, **{k: v for k, v in given.items() if k in takes})
    except ConfigError as error:
        return "cannot be traced" in str(error)
    return False


def test_methods_that_cut_the_network_are_named():
    """`hsakd` wants a teacher of its own kind, which cuts it, too."""
    on_labels = [n for n in METHODS if not unsupported_reason(METHODS[n], Classification)]
    found = {name for name in on_labels if cuts(name)}
    assert named("guide/own-network.md", "Methods that use stages") == found | {"hsakd"}
