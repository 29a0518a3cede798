"""`selfdistill export`: one predictor of a run as a file for deployment."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runs.terminal import console, percent, scored
from .console import amount, difference_text, echo, table

if TYPE_CHECKING:
    from ..export.package import ExportResult


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of the run.")],
    exit: Annotated[
        str,
        typer.Option(
            metavar="[auto|N|student|NAME]",
            help="Exit to export; auto takes the cheapest within the limits.",
        ),
    ] = "auto",
    min_accuracy: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Lowest validation score in the task's metric: 0.95 or 95%.",
            show_default="auto: one point below the student's",
        ),
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Most multiply-adds per image: 30M, 1.2G.")
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="[onnx|pt2|safetensors]", help="File format.")
    ] = "onnx",
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the input images, in pixels.", show_default="the run's"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to create.", show_default="RUN/export/EXIT-FORMAT[-SIZE]"),
    ] = None,
    fuse: Annotated[
        bool, typer.Option("--fuse/--no-fuse", help="Fuse BatchNorm into the convolutions.")
    ] = True,
) -> None:
    """Cut an exit or the whole network out of a run: ONNX, pt2 or weights, with a model card."""
    accuracy, macs = _fraction(min_accuracy), _count(max_macs)
    from ..runs.paths import check_finished
    from ..runs.run import load

    check_finished(run)  # before its data are loaded
    trained = load(run)
    echo(f"{run} · {trained.recipe.method} · {trained.recipe.model}")
    if image_size:
        echo(f"evaluating every exit at {image_size}×{image_size} …", "dim")
    echo("writing it, and running it on held-out images …\n", "dim")
    result = trained.export(
        exit=exit,
        format=format,
        out=out,
        min_accuracy=accuracy,
        max_macs=macs,
        image_size=image_size,
        fuse=fuse,
    )
    _show(result)


def _show(result: "ExportResult") -> None:
    """Print the exported predictor, its verification and the files."""
    score, verification = result.exit_score, result.verification
    splits = [f">{scored(split, score.metric)}" for split in ("val", "test")]
    grid = table("exported", *splits, ">parameters", ">MACs", ">of the student's")
    scores = percent(score.val_score), percent(score.test_score)
    share = f"{100 * score.macs / max(1, result.student_score.macs):.0f} %"
    grid.add_row(score.predictor, *scores, amount(score.parameters), amount(score.macs), share)
    console.print(grid)
    if result.difference:
        difference = difference_text(result.difference)
        echo(f"\nAgainst the student, in points over the same validation images: {difference}.")
    split = {"test": "test", "val": "validation", "random": "random"}[verification.split]
    echo(f"\nVerified on {verification.images:,} {split} images: {verification.summary}.")
    fused = result.fused
    if fused and fused.num_remaining and result.file.suffix != ".onnx":  # ONNX fuses by itself
        echo(
            f"BatchNorm: {fused.num_fused} fused; {fused.num_remaining} left, which follow no "
            "convolution directly, do more than normalize, or stand in code that cannot be traced."
        )
    echo("\nWritten:")
    echo(f"  {result.file} ({amount(result.file.stat().st_size)}B)")
    echo(f"  {result.path / 'README.md'}")
    echo("\nNext: the model card has the lines of Python that use it:")
    echo(f"  cat {shlex.quote(str(result.path / 'README.md'))}")


_NUMBER = r"(\d+\.?\d*|\.\d+)"
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def _fraction(text: str | None) -> float | None:
    """A fraction: 0.95, 95 and 95% are the same."""
    from ..core import ConfigError

    if text is None:
        return None
    match = re.fullmatch(rf"{_NUMBER}\s*(%?)", text.strip())
    value = float(match[1]) if match else -1.0
    if match and (match[2] or value > 1):
        value /= 100
    if not 0 <= value <= 1:
        raise ConfigError(f"--min-accuracy is a share such as 0.95 or 95%, not '{text}'")
    return value


def _count(text: str | None) -> float | None:
    """A number of multiply-adds: 30M, 1.2G."""
    from ..core import ConfigError

    if text is None:
        return None
    match = re.fullmatch(rf"{_NUMBER}\s*([kKMGT]?)", text.strip())
    if not match:
        raise ConfigError(f"--max-macs is a number such as 30M or 1.2G, not '{text}'")
    return float(match[1]) * _UNITS[match[2].upper()]
