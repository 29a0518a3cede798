"""Labels that are none, given to a wrapped method: a sentence that names the classes."""

import pytest
import torch

from selfdistill import wrap
from selfdistill.core import SelfdistillError
from selfdistill.models import build

IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WRONG = {
    "above the classes": torch.tensor([0, 1, 2, 3, 4, 5]),
    "below zero": torch.tensor([0, 1, 2, 3, 4, -1]),
    "from one on": torch.arange(1, 7) % 6,
    "float": torch.arange(6.0) % 5,
    "two dimensions": torch.zeros(6, 5, dtype=torch.int64),
    "a column": torch.zeros(6, 1, dtype=torch.int64),
    "too few": torch.arange(4),
    "too many": torch.arange(8) % 5,
    "a number": torch.tensor(3),
    "mixtures of other classes": torch.full((6, 7), 1 / 7),
    "int32": torch.zeros(6, dtype=torch.int32),
    "bool": torch.zeros(6, dtype=torch.bool),
    "names": ["cat"] * 6,
    "a list": [0, 1, 2, 3, 4, 0],
    "text": "cat",
    "nothing": None,
}


@pytest.mark.parametrize("method", ["ce", "muse", "byot", "cskd", "kd"])
def test_wrong_labels_are_refused_in_a_sentence(method):
    network = build("cifar/resnet8", num_classes=5, in_channels=3)
    teacher = build("cifar/resnet8", num_classes=5, in_channels=3) if method == "kd" else None
    criterion = wrap(network, method, example=IMAGES[:2], classes=5, teacher=teacher)
    companions = {"same_class_inputs": IMAGES} if method == "cskd" else {}
    for name, labels in WRONG.items():
        with pytest.raises(SelfdistillError, match=r"0 … 4|one class an image") as raised:
            criterion(IMAGES, labels, **companions)
        assert "\n" not in str(raised.value), name
    assert int(criterion.step) == 0  # nothing was trained
    criterion(IMAGES, torch.arange(6) % 5, **companions).backward()


@pytest.mark.parametrize(
    ("task", "network", "wrong"),
    [
        ("segmentation", "fpn/small", torch.zeros(3, 32, 32, dtype=torch.int64)),
        ("segmentation", "fpn/small", torch.zeros(2, 32, 32)),
        ("segmentation", "fpn/small", torch.full((2, 32, 32), 7)),
        ("segmentation", "fpn/small", torch.arange(2)),
        ("segmentation", "fpn/small", None),
        ("detection", "yolov5/n", torch.zeros(2, 3, 4)),
        ("detection", "yolov5/n", torch.arange(2)),
        ("detection", "yolov5/n", torch.tensor([[[9.0, 1, 1, 5, 5]]] * 2)),
        ("detection", "yolov5/n", [{"boxes": torch.zeros(1, 4)}] * 2),
    ],
)
def test_wrong_targets_of_scenes(task, network, wrong):
    model = build(network, num_classes=5, in_channels=3)
    side = 64 if task == "detection" else 32
    images = torch.zeros(2, 3, side, side)
    criterion = wrap(model, "ce", example=images, classes=5, task=task)
    with pytest.raises(SelfdistillError, match="5 classes"):
        criterion(images, wrong)
