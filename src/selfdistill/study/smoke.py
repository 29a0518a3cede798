"""A row's whole path in seconds: its method and networks on a few images made of noise."""

import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator

from ..api import load
from ..core import ArtifactError
from ..data import ImageData
from ..data.images import InMemoryImages
from ..data.targets import Boxes, Labels, Targets
from ..engine.evaluate import evaluate
from ..engine.signals import Interrupted
from ..export.exits import from_csv
from ..models import build
from ..recipe.build import Company, eval_loader, make_fabric
from ..recipe.schema import Recipe
from ..running import recipe_of, run_recipe
from ..tasks import make_task
from .paper_row import Row

_CLASSES = 100
_IMAGES = {"train": 8, "val": 8, "test": 16}
_BATCH = 4


class Check(NamedTuple):
    """A step of the path: what it found, or what went wrong."""

    step: str
    found: str
    seconds: float
    fault: Exception | None = None


def smoke(row: Row, place: Path, device: str = "auto") -> Iterator[Check]:
    """Train, cut off, go on, judge again and read back one row; ends with the first fault.

    Method, options and networks are the row's own; images are few and noise, epochs one, steps two.

    Args:
        row: which one.
        place: an empty folder to work in.
        device: where to train.

    Raises:
        ConfigError: the row cannot be run here.
    """
    path = _Path(row, row.recipe(), place, device)
    steps: dict[str, Callable[[], str]] = {"teacher": path.teacher} if path.taught else {}
    steps |= {"train": path.train, "resume": path.resume, "evaluate": path.evaluate}
    steps |= {"table": path.table, "report": path.report}
    for step, do in steps.items():
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "teacher .* guesses")  # noise teaches nothing
                found = do()
        except Interrupted:
            raise
        except Exception as fault:  # a bug is what this looks for
            yield Check(step, "", time.perf_counter() - start, fault)
            return
        yield Check(step, found, time.perf_counter() - start)


class _Path:
    """One row on its way.

    Args:
        row: which one.
        recipe: its own.
        place: an empty folder.
        device: where to train.
    """

    def __init__(self, row: Row, recipe: Recipe, place: Path, device: str) -> None:
        self.row, self.place, self.device = row, place, device
        self.taught = bool(recipe.teacher)
        self.recipe = self._small(recipe)
        self.company = Company()
        self.data = noise(self.recipe, 64 if recipe.image_size else 32)

    def _small(self, recipe: Recipe) -> Recipe:
        """The same method and networks for two quick steps."""
        quick: dict[str, Any] = {"epochs": 1, "batch_size": _BATCH, "save_every": 1, "log_every": 1}
        quick |= {
            "workers": 0,
            "data": "noise",
            "image_size": None,
            "device": self.device,
            "precision": "fp32",
        }
        quick |= {"lr": 0.01, "warmup": 0.0, "milestones": (), "val_every": 1}
        return recipe.model_copy(update=quick)

    def _trained(self, recipe: Recipe, out: Path, *, resume: bool = False) -> None:
        run_recipe(recipe, out=out, resume=resume, data=self.data, company=self.company)

    def teacher(self) -> str:
        """Train the teacher that is a row; one that is published is built without its weights."""
        if not self.row.teacher:
            self.company = Company(build(self.recipe.teacher, num_classes=_CLASSES))
            return f"{self.recipe.teacher}, without its weights"
        other = self._small(self.row.teacher.recipe())
        self._trained(other, self.place / "teacher")
        self.recipe = self.recipe.model_copy(update={"teacher": str(self.place / "teacher")})
        return f"{other.model} by {self.row.teacher.name}"

    def train(self) -> str:
        """One epoch of two steps."""
        self._trained(self.recipe, self.place / "run")
        return f"{self.recipe.method}, {self.recipe.model}"

    def resume(self) -> str:
        """Go on from the first step of a copy, and come to the same weights."""
        copy = Path(shutil.copytree(self.place / "run", self.place / "copy"))
        *_, last = sorted((copy / "checkpoints").glob("step-*"))
        whole = _digests(last)
        shutil.rmtree(last)
        for name in ("exits.csv", "report.html"):
            (copy / name).unlink()
        self._trained(recipe_of(copy), copy, resume=True)
        if _digests(last) == whole:
            return "from step 1, bit for bit"
        if make_fabric(self.recipe).device.type == "cpu":
            raise ArtifactError("the resumed run ended with other weights")
        return "from step 1; kernels of this device are not deterministic"

    def evaluate(self) -> str:
        """Judge the loaded run again, with the same verdict."""
        run = load(self.place / "run", data=self.data, teacher=self.company.teacher)
        fabric = make_fabric(self.recipe)
        task = make_task(self.data.task, self.data.classes, self.data.train.shape)
        run.method.to(fabric.device)
        batches = eval_loader(self.recipe, self.data, self.data.test, fabric)
        scores = evaluate(fabric, run.method, task, batches)
        for row in run.exits:
            if scores[row.predictor][row.metric] != row.test_score:
                raise ArtifactError(f"judged again, {row.predictor} came to something else")
        return f"{len(self.data.test or ())} images, the same verdict"

    def table(self) -> str:
        """exits.csv has all predictors that have a published figure."""
        rows = from_csv((self.place / "run" / "exits.csv").read_text(encoding="utf-8"))
        there = {row.predictor for row in rows} | {"average"}
        if missing := self.row.published.keys() - there:
            raise ArtifactError(f"exits.csv lacks {', '.join(sorted(missing))}")
        return ", ".join(row.predictor for row in rows)

    def report(self) -> str:
        """The page is there."""
        size = (self.place / "run" / "report.html").stat().st_size
        return f"report.html, {size / 1000:.0f} kB"


def _digests(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of a checkpoint's weights."""
    sums: dict[str, str] = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    return {name: digest for name, digest in sums.items() if name.endswith(".safetensors")}


def noise(recipe: Recipe, side: int) -> ImageData:
    """Images of noise with labels or boxes by chance, the same each time."""
    generator = torch.Generator().manual_seed(0)
    wanted = {part: n for part, n in _IMAGES.items() if part != "val" or recipe.val}
    parts = {
        part: InMemoryImages(
            torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator),
            _chance(recipe.task, n, side, generator),
        )
        for part, n in wanted.items()
    }
    classes = [f"class {k}" for k in range(_CLASSES)]
    half, quarter = (0.5,) * 3, (0.25,) * 3
    return ImageData(
        "noise", parts["train"], parts.get("val"), parts["test"], classes, half, quarter,
        crop_padding=4, flip=True, resized_crop=False, task=recipe.task,
    )  # fmt: skip


def _chance(task: str, count: int, side: int, generator: Generator) -> Targets:
    """A label each, or two boxes each, a quarter to half as long as the image."""
    if task != "detection":
        return Labels(torch.randint(0, _CLASSES, (count,), generator=generator))
    labels = torch.randint(0, _CLASSES, (count, 2, 1), generator=generator)
    start, long = side / 2 * torch.rand(2, count, 2, 2, generator=generator)
    return Boxes(torch.cat([labels, start, start + long / 2 + side / 4], 2), (side, side))
