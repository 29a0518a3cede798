"""Every registered method, every variant of it, on two tasks: what the contract tests run over."""

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from selfdistill.core import METHODS, Batch, Method, Progress, Task
from selfdistill.functional.divergence import kl_divergence
from selfdistill.recipe.build import make_method
from selfdistill.tasks import Classification

K, SIDE = 5, 16

# A method that is not named here is tested with its defaults.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "muse": {
        "mul": {"combine": "mul"},
        "concat": {"critic": "concat", "width": 16},
        "global": {"critic": "global", "width": 16},
        "global share": {"global_share": 0.5},
        "roll": {"negatives": "roll"},
        "raw": {"site": "raw"},
        "encoded": {"site": "raw", "self_view": "encoded"},
        "no heads": {"supervised": 0.0, "soft": 0.0},
        "raw, no heads": {"supervised": 0.0, "soft": 0.0, "site": "raw"},
        "mutual only": {"self_information": 0.0},
        "self only": {"mutual": 0.0},
        "infonce": {"estimator": "infonce"},
        "dv": {"estimator": "dv"},
        "nwj": {"estimator": "nwj"},
        "byot heads": {"bottleneck": "byot"},
        "mul, roll, powers": {"combine": "mul", "negatives": "roll", "self_information": 2.0},
        "detached": {"detach_last": True},
    },
    "byot": {"slim": {"bottleneck": "slim"}, "no hint": {"hint": 0.0}},
    "exits": {"labels only": {"soft": 0.0}, "soft only": {"supervised": 0.0}},
}


class PixelAccuracy(MulticlassAccuracy):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(resized(preds, target.shape[-2:]), target)


class Segmentation(Task):
    """One class a pixel: a second task, which no method should tell from the first."""

    headline = "accuracy"
    example = torch.zeros(2, 3, SIDE, SIDE)

    def head(self, channels: int) -> nn.Module:
        return nn.Conv2d(channels, K, 1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(resized(outputs, targets.shape[-2:]), targets)

    def soft_loss(self, outputs: Tensor, reference: Tensor, temperature: float) -> Tensor:
        size = reference.shape[-2:]
        return kl_divergence(resized(outputs, size), reference, temperature)

    def metric(self) -> MetricCollection:
        return MetricCollection({"accuracy": PixelAccuracy(K, average="micro")})

    def check(self, network: nn.Module) -> None:
        assert network(self.example).shape[:2] == (2, K)


def resized(x: Tensor, size: Any) -> Tensor:
    return F.interpolate(x.float(), size=tuple(size), mode="bilinear", align_corners=False)


def trunk(last_stride: int) -> dict[str, nn.Module]:
    sizes = [(3, 8, 1), (8, 8, 2), (8, 12, 2), (12, 16, last_stride)]
    return {
        f"stage{i}": nn.Sequential(
            nn.Conv2d(c, w, 3, stride, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU()
        )
        for i, (c, w, stride) in enumerate(sizes, 1)
    }


class Case(NamedTuple):
    """One method with options, for one task."""

    name: str
    variant: str
    options: dict[str, Any]
    task: str

    def __str__(self) -> str:
        return f"{self.name} {self.variant} {self.task}".replace(" ", "-").replace(",", "")

    def make_task(self) -> Task:
        if self.task == "segmentation":
            return Segmentation()
        return Classification("abcde", torch.zeros(2, 3, SIDE, SIDE))

    def network(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        if self.task == "segmentation":
            up = nn.Upsample(size=(SIDE, SIDE), mode="bilinear")
            return nn.Sequential(OrderedDict(**trunk(1), classify=nn.Conv2d(16, K, 1), up=up))
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(OrderedDict(**trunk(2), pool=pool, fc=nn.Linear(16, K)))

    def method(self, seed: int = 0, taps: Any = None, network: nn.Module | None = None) -> Method:
        network = network or self.network(seed)
        taps = taps or ["stage1", "stage2", "stage3", "stage4"]
        return make_method(self.name, network, self.make_task(), taps, self.options).train()

    def batch(self, seed: int = 0, size: int = 8) -> Batch:
        generator = torch.Generator().manual_seed(seed)

        def images() -> Tensor:
            return torch.randn(size, 3, SIDE, SIDE, generator=generator)

        targets, colours = torch.arange(size) % K, torch.zeros(())
        if self.task == "segmentation":
            targets = torch.randint(K, (size, 2, 2), generator=generator)
            targets = targets.repeat_interleave(SIDE // 2, 1).repeat_interleave(SIDE // 2, 2)
            palette = 2 * torch.randn(K, 3, generator=torch.Generator().manual_seed(0))
            colours = palette[targets].movedim(3, 1)  # (B, 3, H, W)
        views = tuple(colours + images() for _ in range(METHODS[self.name].needs.views - 1))
        return Batch(colours + images(), targets, torch.arange(size), views)


def moment(step: int = 0, seed: int = 0) -> Progress:
    return Progress(torch.tensor(seed), torch.tensor(0), torch.tensor(step), torch.tensor(0.1))


TASKS = ("classification", "segmentation")
DEFAULTS = [Case(name, "defaults", {}, task) for name in METHODS for task in TASKS]
CASES = DEFAULTS + [
    Case(name, variant, options, task)
    for name, variants in VARIANTS.items()
    for variant, options in variants.items()
    for task in TASKS
]
# Every variant meets the first task in the usual suite, the second one in the slow half.
_MARKS = {str(c): pytest.mark.slow for c in CASES[len(DEFAULTS) :] if c.task != TASKS[0]}
every_case = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=_MARKS.get(str(case), ())) for case in CASES], ids=str
)
every_default = pytest.mark.parametrize("case", DEFAULTS, ids=str)
