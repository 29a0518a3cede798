"""Colors of classes, and names of scores."""

import pytest

from selfdistill.tasks import TASKS
from selfdistill.tasks.colors import colors
from selfdistill.tasks.metric_names import shown_metric


def test_twenty_classes_are_told_apart_and_then_colors_repeat():
    some = colors(45)
    assert len(set(some[:20])) == 20
    assert some[20:40] == some[:20]
    assert some[0] == (128, 128, 128)
    apart = [
        sum(abs(a - b) for a, b in zip(x, y, strict=True))
        for x in some[:20]
        for y in some[:20]
        if x != y
    ]
    assert min(apart) > 50


@pytest.mark.parametrize(
    ("name", "shown"), [("accuracy", "accuracy"), ("miou", "mIoU"), ("map", "mAP"), ("x", "x")]
)
def test_names_for_people(name, shown):
    assert shown_metric(name) == shown


def test_every_task_has_a_name_for_its_score():
    names = {task.name: shown_metric(task.primary_metric) for task in TASKS.values()}
    labeled = ("classification", "clips")
    assert all(names.pop(task) == "accuracy" for task in labeled)
    assert names.pop("embedding") == "cosine similarity"
    assert all(name != name.lower() for name in names.values())
