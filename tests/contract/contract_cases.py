"""Every registered method, every variant of it, on two tasks: what the contract tests run over."""

import inspect
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
from selfdistill.recipe.making import make_method
from selfdistill.tasks import Classification

K, SIDE, SAMPLES = 5, 16, 40
STAGES = ["stage1", "stage2", "stage3", "stage4"]

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
    "frskd": {
        "labels only": {"soft": 0.0, "attention": 0.0},
        "no features": {"attention": 0.0},
        "narrow": {"width": 0.5, "depth": 1, "resize": "bilinear", "attention": 1.0},
    },
    "exits": {
        "labels only": {"soft": 0.0},
        "soft only": {"supervised": 0.0},
        "l2": {"discrepancy": "l2"},
        "l2 alone": {"discrepancy": "l2", "supervised": 0.0, "soft": 0.0},
        "mmd": {"discrepancy": "mmd", "soft": 0.0, "discrepancy_weight": 1.0},
        "vid": {"discrepancy": "vid", "soft": 0.0},
        "adversarial": {"discrepancy": "adversarial", "soft": 0.0},
        "adversarial, detached": {"discrepancy": "adversarial", "detach_last": True},
    },
    "muse-offline": {
        "mul": {"combine": "mul"},
        "concat": {"critic": "concat", "width": 16},
        "roll": {"negatives": "roll", "global_share": 0.5},
        "logits only": {"information": 0.0},
        "self only": {"mutual": 0.0},
    },
    "muse-online": {
        "two peers": {},
        "mul": {"combine": "mul"},
        "concat": {"critic": "concat", "width": 16},
        "roll": {"negatives": "roll", "global_share": 0.5},
        "logits only": {"information": 0.0},
        "detached": {"detach_peer": True},
        "mutual only": {"self_information": 0.0, "soft": 0.0},
    },
    "sad": {"lanes": {"attention": 0.1, "energy": "sum", "start": 2 / 3}},
    "snapshot": {"thirty": {"generations": 30}},
    "dml": {"two peers": {}, "labels only": {"soft": 0.0}, "warm": {"temperature": 4.0}},
    "crd": {
        "few": {"negatives": 3, "width": 16},
        "soft": {"soft": 0.1, "positives": "class"},
    },
    "mimkd": {
        "all places": {"negatives_at": "all", "width": 16},
        "separable": {"critic": "separable", "width": 16},
        "concat": {"critic": "concat", "width": 16, "feature_width": 16},
        "soft": {"soft": 0.1, "width": 16},
        "global only": {"local": 0.0, "feature": 0.0, "width": 16},
        "feature only": {"local": 0.0, "glob": 0.0},
    },
    "kdcl": {
        "naive": {"target": "naive"},
        "linear": {"target": "linear"},
        "general": {"target": "general"},
        "two peers": {},
        "linear, two peers": {"target": "linear"},
        "general, two peers": {"target": "general"},
        "labels only": {"soft": 0.0},
    },
    "afd": {
        "two peers": {"width": 16},
        "narrow": {"width": 4, "discriminator_lr": 1.0},
        "logits only": {"adversarial": 0.0},
        # at weight 1 and without soft outputs, maps outweigh labels longer than a test lasts
        "maps only": {"soft": 0.0, "adversarial": 0.3},
    },
    "kd": {"soft only": {"supervised": 0.0}, "labels only": {"soft": 0.0}},
    "fitnets": {
        "shallow": {"tap": 4},
        "deepest": {"tap": 1, "soft": 0.9},
        "linear": {"relu": False},
        "no hint": {"hint": 0.0},
    },
    "at": {"soft": {"soft": 0.9}},
    "vid": {"soft": {"soft": 0.9}, "no bound": {"variational": 0.0}},
    "nst": {"soft": {"soft": 0.9}},
    "sp": {"all": {"stages": "all"}, "soft": {"soft": 0.9}},
    "rkd": {"distance": {"angle": 0.0}, "angle": {"distance": 0.0}, "soft": {"soft": 0.9}},
    "dkd": {"no warm-up": {"ramp": 0.0}, "target": {"others": 0.0}, "others": {"target": 0.0}},
    "one": {
        "two branches": {"branches": 2},
        "no ramp": {"ramp": 0.0},
        "labels only": {"soft": 0.0},
    },
    "mixskd": {
        # at full weight a random self-teacher holds the student back from what it is to learn here
        "released": {"variant": "released", "soft": 0.1},
        "uniform": {"mixup": 1.0},
        "scores only": {"feature": 0.0, "adversarial": 0.0},
        "maps only": {"soft": 0.0},
        "released maps": {"variant": "released", "soft": 0.0},
    },
}


class PixelAccuracy(MulticlassAccuracy):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(resized(preds, target.shape[-2:]), target)


class Segmentation(Task):
    """One class a pixel: a second task, which no method should tell from the first."""

    headline = "accuracy"
    name = "segmentation"
    scores = True
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


WIDTHS, TEACHER_WIDTHS, PEER_WIDTHS = (8, 8, 12, 16), (8, 12, 16, 24), (6, 8, 10, 12)


def trunk(last_stride: int, widths: tuple[int, ...]) -> dict[str, nn.Module]:
    strides, channels = (1, 2, 2, last_stride), (3, *widths)
    sizes = zip(channels, widths, strides, strict=False)
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

    @property
    def peers(self) -> int:
        """How many a method is given that trains several networks."""
        return 2 if "two peers" in self.variant else 1

    def make_task(self) -> Task:
        if self.task == "segmentation":
            return Segmentation()
        return Classification("abcde", torch.zeros(2, 3, SIDE, SIDE))

    def network(self, seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> nn.Module:
        torch.manual_seed(seed)
        if self.task == "segmentation":
            up = nn.Upsample(size=(SIDE, SIDE), mode="bilinear")
            classify = nn.Conv2d(widths[-1], K, 1)
            return nn.Sequential(OrderedDict(**trunk(1, widths), classify=classify, up=up))
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(
            OrderedDict(**trunk(2, widths), pool=pool, fc=nn.Linear(widths[-1], K))
        )

    def company(self, seed: int = 0, taps: Any = None) -> dict[str, Any]:
        """Teacher, peers and labels, as far as the method takes them; the teacher is always one."""
        given: dict[str, Any] = {}
        takes = inspect.signature(METHODS[self.name]).parameters
        if "teacher" in takes:
            teacher = self.network(7, TEACHER_WIDTHS)
            given |= {"teacher": teacher, "teacher_taps": taps or STAGES}
        if "peers" in takes:
            seeds = range(seed + 100, seed + 100 + self.peers)
            given["peers"] = [self.network(s, PEER_WIDTHS) for s in seeds]
        if "train_labels" in takes:
            given["train_labels"] = torch.arange(SAMPLES) % K
        return given

    def method(self, seed: int = 0, taps: Any = None, network: nn.Module | None = None) -> Method:
        company = self.company(seed, taps)
        network = network or self.network(seed)
        task = self.make_task()
        torch.manual_seed(seed + 50)  # of what the method adds, however the network was made
        return make_method(
            self.name, network, task, taps or STAGES, self.options, **company
        ).train()

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
        needs = METHODS[self.name].needs
        further = self.peers - 1 if needs.views > 1 else 0  # whose networks have views of their own
        views = tuple(colours + images() for _ in range(needs.views - 1 + further))
        inputs = colours + images()
        # classes come in order: image k is the first of class k, and its whole class's partner
        partners = inputs[torch.arange(size) % K] + 0.1 * images() if needs.partners else None
        return Batch(inputs, targets, torch.arange(size), views, partners)


def moment(step: int = 0, seed: int = 0) -> Progress:
    return Progress(*map(torch.tensor, (seed, 0, step, 1000)))


TASKS = ("classification", "segmentation")


def serves(name: str, task: str) -> bool:
    needs = METHODS[name].needs
    return task == "classification" or not needs.labels


# The paper's weight is for maps of 8×8 and more.
GENTLE = {("sad", "segmentation"): {"attention": 10.0}}
DEFAULTS = [
    Case(name, "defaults", GENTLE.get((name, task), {}), task)
    for name in METHODS
    for task in TASKS
    if serves(name, task)
]
CASES = DEFAULTS + [
    Case(name, variant, options, task)
    for name, variants in VARIANTS.items()
    for variant, options in variants.items()
    for task in TASKS
    if serves(name, task)
]
# Every variant meets the first task in the usual suite, the second one in the slow half.
_MARKS = {str(c): pytest.mark.slow for c in CASES[len(DEFAULTS) :] if c.task != TASKS[0]}
every_case = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=_MARKS.get(str(case), ())) for case in CASES], ids=str
)
every_default = pytest.mark.parametrize("case", DEFAULTS, ids=str)
