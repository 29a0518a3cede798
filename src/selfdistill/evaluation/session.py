"""A trained method with all that it takes to evaluate it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from lightning_fabric import Fabric

from ..core import DataError, Method, Task
from ..data import EvalLoader, ImageData
from ..data.image_set import ImageSet
from ..engine.evaluate import EvaluationResult, evaluate, evaluate_full
from ..recipe.loaders import eval_loader
from ..recipe.make_fabric import make_fabric
from ..recipe.schema import Recipe, parse
from ..records import SPLITS
from ..records.exit_scores import ExitScore, Scores, score_exits
from ..tasks import make_task


@dataclass(frozen=True)
class EvaluationSession:
    """A method and the images to evaluate it by; every evaluation leaves the method's modes alone.

    Attributes:
        recipe: says batch size and loading processes.
        data: normalized as the method was trained.
        method: what is evaluated; it is moved to the device.
        fabric: device, precision and processes.
    """

    recipe: Recipe
    data: ImageData
    method: Method
    fabric: Fabric

    @classmethod
    def local(
        cls,
        recipe: Recipe,
        data: ImageData,
        method: Method,
        *,
        device: str | None = None,
        precision: str | None = None,
    ) -> Self:
        """A session in this process alone; device and precision are the recipe's unless given."""
        changes = {"device": device, "precision": precision}
        given = {key: value for key, value in changes.items() if value is not None}
        recipe = parse(recipe.model_dump() | {"devices": 1, "num_nodes": 1} | given)
        fabric = make_fabric(recipe)
        method.to(fabric.device)
        return cls(recipe, data, method, fabric)

    @cached_property
    def task(self) -> Task:
        """What the labels of the data mean."""
        return make_task(self.data.task, self.data.classes, self.data.train.shape)

    @cached_property
    def splits(self) -> dict[str, ImageSet]:
        """The held-out parts that there are: {"val": images, "test": images}."""
        parts = {split: getattr(self.data, split) for split in SPLITS}
        return {split: images for split, images in parts.items() if images is not None}

    def loader(self, split: str) -> EvalLoader:
        """Batches of a held-out part, in order.

        Raises:
            DataError: there is no such part.
        """
        if split not in self.splits:
            raise DataError(f"'{self.data.name}' has no {split} part")
        return eval_loader(self.recipe, self.data, self.splits[split], self.fabric)

    def evaluate(self, split: str) -> dict[str, dict[str, float]]:
        """{predictor: {metric: value}} on a held-out part."""
        return evaluate(self.fabric, self.method, self.task, self.loader(split))

    def evaluate_full(self, split: str) -> EvaluationResult:
        """Everything that the task measures on a held-out part."""
        return evaluate_full(self.fabric, self.method, self.task, self.loader(split))

    def score_exits(self, *splits: str) -> list[ExitScore]:
        """Score and cost of every predictor on the held-out parts named; none names all of them."""
        return self.exit_scores({split: self.evaluate(split) for split in splits or self.splits})

    def exit_scores(self, scores: Mapping[str, Scores]) -> list[ExitScore]:
        """The costs of every predictor beside scores that are known, by split."""
        val, test = scores.get("val"), scores.get("test")
        return score_exits(self.method, self.task.example, self.task.primary_metric, val, test)
