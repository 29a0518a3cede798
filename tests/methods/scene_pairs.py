"""A small network for scenes, its task and a batch whose masks have pixels that do not count."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from offline_pairs import STAGES
from torch import nn

import selfdistill.methods  # noqa: F401  importing them is what registers them
from selfdistill.core import IGNORE, METHODS, Batch, Method
from selfdistill.taps import Taps, Teacher
from selfdistill.tasks import Segmentation

CLASSES, SIDE = "abcd", 16


def scene_net(widths: Sequence[int] = (6, 8, 10, 12), seed: int = 0) -> nn.Module:
    """Four stages, 3×16×16 to scores of 4×4 places."""
    torch.manual_seed(seed)
    parts: dict[str, nn.Module] = {}
    strides, channels = (1, 2, 2, 1), (3, *widths)
    for i, (c, w, stride) in enumerate(zip(channels, widths, strides, strict=False), 1):
        conv = nn.Conv2d(c, w, 3, stride, 1, bias=False)
        parts[f"stage{i}"] = nn.Sequential(conv, nn.BatchNorm2d(w), nn.ReLU())
    return nn.Sequential(OrderedDict(parts, classify=nn.Conv2d(widths[-1], len(CLASSES), 1)))


def scene_task() -> Segmentation:
    return Segmentation(CLASSES, torch.zeros(2, 3, SIDE, SIDE))


def scene_batch(size: int = 4, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(len(CLASSES), (size, SIDE, SIDE), generator=generator)
    masks[:, :3] = IGNORE
    inputs = torch.randn(size, 3, SIDE, SIDE, generator=generator)
    return Batch(inputs, masks, torch.arange(size))


def scene_method(
    name: str, student: nn.Module, teacher: nn.Module | None = None, **options: Any
) -> Method:
    """A method of features on scenes, in training mode."""
    task = scene_task()
    given = [Taps(student, STAGES, example=task.example)]
    if teacher is not None:
        given.append(Teacher(Taps(teacher, STAGES, example=task.example)))
    torch.manual_seed(1)
    return METHODS[name](*given, task, **options)
