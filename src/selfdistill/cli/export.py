"""`selfdistill export`: one predictor of a run by itself, as a file for elsewhere."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import (
    amount,
    console,
    echo,
    percent,
    scored,
    table,
)

if TYPE_CHECKING:
    from ..export.package import ExportResult


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of the run.")],
    exit: Annotated[
        str,
        typer.Option(
            metavar="[auto|N|final|NAME]",
            help="Which exit; auto takes the cheapest that is good enough.",
        ),
    ] = "auto",
    min_accuracy: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="On validation images, of what the task is judged by: 0.95 or 95%.",
            show_default="auto: one point below the student's",
        ),
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Multiply-adds an image: 30M, 1.2G.")
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="[onnx|pt2|safetensors]", help="Of the file.")
    ] = "onnx",
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the images, in pixels.", show_default="the run's"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to make.", show_default="RUN/export/EXIT-FORMAT"),
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold/--no-fold", help="Put BatchNorm into the convolutions.")
    ] = True,
) -> None:
    """Cut an exit or the whole network out of a run: ONNX, pt2 or weights, with a model card."""
    accuracy, macs = _share(min_accuracy), _count(max_macs)
    from ..export.package import check_finished
    from ..runs.run import load

    check_finished(run)  # before its data are loaded
    trained = load(run)
    echo(f"{run} · {trained.recipe.method} · {trained.recipe.model}")
    if image_size:
        echo(f"judging every exit at {image_size}×{image_size} …", "dim")
    echo("writing it, and running it on all test images …\n", "dim")
    made = trained.export(
        exit=exit,
        format=format,
        out=out,
        min_accuracy=accuracy,
        max_macs=macs,
        image_size=image_size,
        fold=fold,
    )
    _show(made)


def _show(made: "ExportResult") -> None:
    """What was taken, what was written, and how sure it is."""
    row, it = made.row, made.comparison
    splits = [f">{scored(split, row.metric)}" for split in ("val", "test")]
    shown = table("exported", *splits, ">parameters", ">MACs", ">of the student's")
    scores = percent(row.val_score), percent(row.test_score)
    share = f"{100 * row.macs / max(1, made.student.macs):.0f} %"
    shown.add_row(row.predictor, *scores, amount(row.parameters), amount(row.macs), share)
    console.print(shown)
    part = {"test": "test", "val": "validation", "random": "random"}[it.part]
    echo(f"\nVerified on {it.images:,} {part} images: {it.told}.")
    if made.folded and made.folded.left and made.file.suffix != ".onnx":  # ONNX folds for itself
        echo(
            f"BatchNorm: {made.folded.gone} folded; {made.folded.left} left, which follow no "
            "convolution directly, do more than normalize, or stand in code that cannot be traced."
        )
    echo("\nWritten:")
    echo(f"  {made.file} ({amount(made.file.stat().st_size)}B)")
    echo(f"  {made.path / 'README.md'}")
    echo("\nNext: the model card has the lines of Python that use it:")
    echo(f"  cat {shlex.quote(str(made.path / 'README.md'))}")


_NUMBER = r"(\d+\.?\d*|\.\d+)"
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def _share(text: str | None) -> float | None:
    """A fraction: 0.95, 95 and 95% are the same."""
    from ..core import ConfigError

    if text is None:
        return None
    found = re.fullmatch(rf"{_NUMBER}\s*(%?)", text.strip())
    value = float(found[1]) if found else -1.0
    if found and (found[2] or value > 1):
        value /= 100
    if not 0 <= value <= 1:
        raise ConfigError(f"--min-accuracy is a share such as 0.95 or 95%, not '{text}'")
    return value


def _count(text: str | None) -> float | None:
    """A number of multiply-adds: 30M, 1.2G."""
    from ..core import ConfigError

    if text is None:
        return None
    found = re.fullmatch(rf"{_NUMBER}\s*([kKMGT]?)", text.strip())
    if not found:
        raise ConfigError(f"--max-macs is a number such as 30M or 1.2G, not '{text}'")
    return float(found[1]) * _UNITS[found[2].upper()]
