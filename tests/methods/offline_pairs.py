"""A teacher for the tiny student, and what one does to look into a method with both."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import selfdistill.methods  # noqa: F401  importing them is what registers them
from selfdistill.core import METHODS, Method, Task
from selfdistill.taps import Taps, Teacher

STAGES = ("stage1", "stage2", "stage3", "stage4")


def teacher_net(
    widths: Sequence[int] = (8, 12, 16, 24), strides: Sequence[int] = (1, 2, 2, 2)
) -> nn.Module:
    """Wider than the student; with other strides its maps are of other sizes, too."""
    torch.manual_seed(7)
    channels = (3, *widths)
    parts: dict[str, nn.Module] = {}
    for i, (c, w, stride) in enumerate(zip(channels, widths, strides, strict=False), 1):
        conv = nn.Conv2d(c, w, 3, stride, 1, bias=False)
        parts[f"stage{i}"] = nn.Sequential(conv, nn.BatchNorm2d(w), nn.ReLU())
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    return nn.Sequential(OrderedDict(parts, fc=nn.Linear(widths[-1], 5)))


def offline(
    name: str,
    student: nn.Module,
    task: Task,
    teacher: nn.Module | None = None,
    *,
    taps: Sequence[str] = STAGES,
    teacher_taps: Sequence[str] = STAGES,
    **options: Any,
) -> Method:
    """A method that learns from a teacher's features, in evaluation mode."""
    teacher = teacher or teacher_net()
    both = [
        Taps(network, names, example=task.example)
        for network, names in ((student, taps), (teacher, teacher_taps))
    ]
    torch.manual_seed(1)
    return METHODS[name](both[0], Teacher(both[1]), task, **options).eval()


def features(method: Method, inputs: Tensor) -> tuple[list, list]:
    """Of student and teacher, as numpy arrays in double precision."""
    with torch.no_grad():
        both = [taps.forward_features(inputs)[1] for taps in (method.student, method.teacher)]
    return tuple([f.double().numpy() for f in maps.values()] for maps in both)


def reached(loss: Tensor, network: nn.Module) -> set[str]:
    """The children of a network whose parameters get a gradient that is not all zero."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    hit = (n for n, g in zip(names, grads, strict=True) if g is not None and g.abs().max() > 0)
    return {name.split(".")[0] for name in hit}


class Says(nn.Module):
    """A network that says these logits, whatever it is shown."""

    def __init__(self, logits: Any) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits
