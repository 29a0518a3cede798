"""When a teacher is said to guess: by how often the most frequent class comes, and by chance."""

from types import SimpleNamespace

import pytest
import torch

from selfdistill.data import InMemoryImages
from selfdistill.runs.teacher_check import _chance_warning
from selfdistill.tasks import make_task


def warning(score, counts):
    """What is said of a teacher with this accuracy on so many images of each class."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = InMemoryImages(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels)
    task = make_task("classification", [*map(str, range(len(counts)))], (1, 2, 2))
    recipe = SimpleNamespace(teacher="runs/teacher")
    components = SimpleNamespace(task=task, recipe=recipe)
    return _chance_warning({"accuracy": score}, components, images)


@pytest.mark.parametrize(
    ("score", "counts"),
    [
        (0.938, (24, 24)),
        (0.611, (12, 12, 12)),
        (0.05, (50,) * 100),
        (0.97, (180, 20)),
        (1.0, (40, 40)),
    ],
)
def test_a_teacher_that_knows_something_is_not_said_to_guess(score, counts):
    assert warning(score, counts) == ""


@pytest.mark.parametrize(
    ("score", "counts", "share"),
    [
        (0.52, (24, 24), "50.0%"),
        (0.4, (12, 12, 12), "33.3%"),
        (0.011, (50,) * 100, "1.0%"),
        (0.9, (180, 20), "90.0%"),
        (0.3, (180, 20), "90.0%"),
    ],
)
def test_one_that_is_no_better_than_the_most_frequent_class_is(score, counts, share):
    text = warning(score, counts)
    assert f"the most frequent class has {share} of the images" in text
    assert "in this order?" in text
