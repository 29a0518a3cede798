"""Smoke test of a row: its method and networks on a few images of noise, in seconds."""

import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Generator, nn

from ..core import ArtifactError
from ..data import ImageData
from ..data.in_memory import InMemoryImages
from ..data.targets import Boxes, Labels, Targets
from ..models import build
from ..recipe.make_fabric import make_fabric
from ..recipe.schema import Recipe
from ..records.exit_scores import from_csv
from ..runs.paths import load_recipe
from ..runs.run import load
from ..runs.train import train_recipe
from .paper_row import PaperRow

_NUM_CLASSES = 100
_IMAGES = {"train": 8, "val": 8, "test": 16}
_BATCH_SIZE = 4


@dataclass(frozen=True)
class SmokeCheck:
    """One step of a smoke test: its result, or the error that it raised."""

    step: str
    result: str
    seconds: float
    error: Exception | None = None


def smoke_test(row: PaperRow, device: str = "auto") -> Iterator[SmokeCheck]:
    """Train one row, resume it, evaluate it again and read its files; ends with the first error.

    Method, options and networks are the row's own; images are few and noise, epochs one, steps two.
    All files lie in a temporary directory.

    Raises:
        ConfigError: the row cannot be trained here.
    """
    with TemporaryDirectory() as folder:
        test = _SmokeTest(row, row.recipe(), Path(folder), device)
        steps: dict[str, Callable[[], str]] = {"teacher": test.teacher} if test.has_teacher else {}
        steps |= {"train": test.train, "resume": test.resume, "evaluate": test.evaluate}
        steps |= {"table": test.table, "report": test.report}
        for name, step in steps.items():
            start = time.perf_counter()
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "teacher .* guesses")  # noise teaches nothing
                    warnings.filterwarnings("ignore", "class .* no training image")  # a few images
                    result = step()
            except Exception as error:  # this test looks for bugs
                yield SmokeCheck(name, "", time.perf_counter() - start, error)
                return
            yield SmokeCheck(name, result, time.perf_counter() - start)


class _SmokeTest:
    """Steps of the smoke test of one row.

    Args:
        row: the row.
        recipe: its recipe.
        folder: an empty folder.
        device: device to train on.
    """

    def __init__(self, row: PaperRow, recipe: Recipe, folder: Path, device: str) -> None:
        self.row, self.folder, self.device = row, folder, device
        self.has_teacher = bool(recipe.teacher)
        self.recipe = self._shorten(recipe)
        self.published_teacher: nn.Module | None = None
        self.data = noise_data(self.recipe, 64 if recipe.image_size else 32)

    def _shorten(self, recipe: Recipe) -> Recipe:
        """Recipe of the same method and networks for two quick steps."""
        changes: dict[str, Any] = {
            **{"epochs": 1, "batch_size": _BATCH_SIZE, "save_every_steps": 1},
            **{"num_workers": 0, "data": "noise", "image_size": None, "device": self.device},
            **{"log_every_steps": 1, "val_every_epochs": 1},
            **{"precision": "fp32", "lr": 0.01, "warmup_epochs": 0.0, "milestones": ()},
        }
        return recipe.model_copy(update=changes)

    def _train(self, recipe: Recipe, out: Path, *, resume: bool = False) -> None:
        train_recipe(recipe, out=out, resume=resume, data=self.data, teacher=self.published_teacher)

    def teacher(self) -> str:
        """Train the teacher that is a row; one that is published is built without its weights."""
        if not self.row.teacher:
            self.published_teacher = build(self.recipe.teacher, num_classes=_NUM_CLASSES)
            return f"{self.recipe.teacher}, without its weights"
        recipe, run_dir = self._shorten(self.row.teacher.recipe()), self.folder / "teacher"
        self._train(recipe, run_dir)
        self.recipe = self.recipe.model_copy(update={"teacher": str(run_dir)})
        return f"{recipe.model} by {self.row.teacher.name}"

    def train(self) -> str:
        """Train for one epoch of two steps."""
        self._train(self.recipe, self.folder / "run")
        return f"{self.recipe.method}, {self.recipe.model}"

    def resume(self) -> str:
        """Resume a copy from its first step, and compare the weights."""
        copy = Path(shutil.copytree(self.folder / "run", self.folder / "copy"))
        *_, last = sorted((copy / "checkpoints").glob("step-*"))
        digests = _digests(last)
        shutil.rmtree(last)
        for name in ("exits.csv", "report.html"):
            (copy / name).unlink()
        self._train(load_recipe(copy), copy, resume=True)
        if _digests(last) == digests:
            return "from step 1, bit for bit"
        if make_fabric(self.recipe).device.type == "cpu":
            raise ArtifactError("the resumed run ended with other weights")
        return "from step 1; kernels of this device are not deterministic"

    def evaluate(self) -> str:
        """Evaluate the loaded run again, and compare the scores."""
        run = load(self.folder / "run", data=self.data, teacher=self.published_teacher)
        scores = {exit_.predictor: exit_.test_score for exit_ in run.evaluate("test").exits}
        for exit_ in run.exits:
            if scores[exit_.predictor] != exit_.test_score:
                raise ArtifactError(f"evaluated again, {exit_.predictor} has another score")
        return f"{len(self.data.test or ())} images, the same scores"

    def table(self) -> str:
        """Read exits.csv, which has all predictors that have a published figure."""
        exits = from_csv((self.folder / "run" / "exits.csv").read_text(encoding="utf-8"))
        predictors = [exit_.predictor for exit_ in exits]
        if missing := self.row.published.keys() - {*predictors, "average"}:
            raise ArtifactError(f"exits.csv lacks {', '.join(sorted(missing))}")
        return ", ".join(predictors)

    def report(self) -> str:
        """Read the size of report.html."""
        size = (self.folder / "run" / "report.html").stat().st_size
        return f"report.html, {size / 1000:.0f} kB"


def _digests(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of a checkpoint's weights."""
    manifest: dict[str, str] = json.loads(
        (checkpoint / "manifest.json").read_text(encoding="utf-8")
    )
    return {name: digest for name, digest in manifest.items() if name.endswith(".safetensors")}


def noise_data(recipe: Recipe, side: int) -> ImageData:
    """Images of noise with random labels or boxes; the same at every call."""
    generator = torch.Generator().manual_seed(0)
    sizes = {part: n for part, n in _IMAGES.items() if part != "val" or recipe.val_fraction}
    parts = {
        part: InMemoryImages(
            torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator),
            _random_targets(recipe.task, n, side, generator),
        )
        for part, n in sizes.items()
    }
    classes = [f"class {k}" for k in range(_NUM_CLASSES)]
    half, quarter = (0.5,) * 3, (0.25,) * 3
    return ImageData(
        "noise", parts["train"], parts.get("val"), parts["test"], classes, half, quarter,
        crop_padding=4, flip=True, resized_crop=False, task=recipe.task,
    )  # fmt: skip


def _random_targets(task: str, count: int, side: int, generator: Generator) -> Targets:
    """A label for each image, or two boxes whose sides are a quarter to half of the image's."""
    if task != "detection":
        return Labels(torch.randint(0, _NUM_CLASSES, (count,), generator=generator))
    labels = torch.randint(0, _NUM_CLASSES, (count, 2, 1), generator=generator)
    corner, length = side / 2 * torch.rand(2, count, 2, 2, generator=generator)
    return Boxes(torch.cat([labels, corner, corner + length / 2 + side / 4], 2), (side, side))
