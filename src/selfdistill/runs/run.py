"""What a training run leaves behind, and what can be done with it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from ..core import Method
from ..data import ImageData
from ..export.package import (
    ExportResult,
    check_finished,
    export_run,
    score_exits_at_size,
)
from ..recipe.build_run import load_data
from ..recipe.schema import Recipe
from ..records.exit_scores import ExitScore


@dataclass
class Run:
    """What a training run left behind.

    Attributes:
        path: its directory.
        recipe: all that made it.
        method: trained, on its device, in evaluation mode.
        exits: score and cost of every predictor, shallowest first.
    """

    path: Path
    recipe: Recipe
    method: Method = field(repr=False)
    exits: list[ExitScore]

    @property
    def network(self) -> nn.Module:
        """The trained student, as it was given: no heads, no critics."""
        return self.method.predictors()["student"]

    def export(
        self,
        *,
        exit: str | int = "auto",
        format: str = "onnx",
        out: str | Path | None = None,
        min_accuracy: float | None = None,
        max_macs: float | None = None,
        image_size: int | None = None,
        fuse: bool = True,
        data: ImageData | None = None,
    ) -> ExportResult:
        """Write an exit or the student by itself, verified, with a model card.

        Args:
            exit, min_accuracy, max_macs: which predictor, see `export.select_exit`.
            format: ``"onnx"``, ``"pt2"`` or ``"safetensors"``.
            out: the folder to make; None is export/PREDICTOR-FORMAT in the run's directory.
            image_size: side of the images that the file is to take; None is the run's. At another
                size every predictor is judged anew.
            fuse: whether to fuse BatchNorm into the convolutions; safetensors always keeps it.
            data: the run's own, if they were given as an object; at the size of the file.

        Raises:
            SelfdistillError: see `export.package.export_run`.

        Examples:
            >>> run.export(exit="auto", min_accuracy=0.95).path  # doctest: +SKIP
        """
        check_finished(self.path)
        size = image_size or self.recipe.image_size
        if data is None:
            data = load_data(self.recipe.model_copy(update={"image_size": size}))
        own = size == self.recipe.image_size
        return export_run(
            self if own else replace(self, exits=score_exits_at_size(self, data)),
            data,
            exit=exit,
            format=format,
            out=out,
            min_accuracy=min_accuracy,
            max_macs=max_macs,
            fuse=fuse,
        )
