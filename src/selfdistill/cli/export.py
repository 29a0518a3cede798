"""`selfdistill export`: one predictor of a run as a file for deployment."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..export.formats import check_format, format_names
from ..export.int8_options import int8_options
from ..records import split_name
from ..runs.terminal import console, percent, scored
from .console import amount, difference_text, echo, table
from .options import points_as_part

if TYPE_CHECKING:
    from ..export.int8_export import Int8Comparison
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
        str, typer.Option(metavar=f"[{'|'.join(format_names())}]", help="File format.")
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
    max_loss: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Allowed loss of int8 in the task's metric on the test images.",
            show_default="1",
        ),
    ] = None,
    float_layers: Annotated[
        str | None,
        typer.Option(
            metavar="[auto|N]",
            help="Layers that int8 leaves in float32, those that lose most; auto takes the fewest "
            "within the allowed loss on the validation images.",
            show_default="0",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images of a timed forward pass of int8.", show_default="1"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads for timing int8.", show_default="all")
    ] = None,
) -> None:
    """Cut an exit or the whole network out of a run, as a file with a card."""
    check_format(format)
    accuracy, macs = _fraction(min_accuracy), _count(max_macs)
    int8 = int8_options(
        format,
        max_loss=None if max_loss is None else points_as_part(max_loss, "--max-loss"),
        float_layers=float_layers,
        batch_size=batch_size,
        num_threads=threads,
    )
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
        int8=int8,
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
    split = split_name(verification.split)
    verified = "The float32 file was verified" if result.int8 else "Verified"
    echo(f"\n{verified} on {verification.images:,} {split} images: {verification.summary}.")
    if result.int8:
        _show_int8(result.int8)
    fused = result.fused
    if fused and fused.num_remaining and not result.file_format.exporter:
        echo(
            f"BatchNorm: {fused.num_fused} fused; {fused.num_remaining} left, which follow no "
            "convolution directly, do more than normalize, or stand in code that cannot be traced."
        )
    echo("\nWritten:")
    echo(f"  {result.file} ({amount(result.file_format.size(result.file))}B)")
    for other in sorted(result.path.iterdir()):
        if other != result.file:
            echo(f"  {other}")
    echo("\nNext: the model card has the lines of Python that use it:")
    echo(f"  cat {shlex.quote(str(result.path / 'README.md'))}")
    if upload := result.file_format.upload:
        echo(
            "\nNothing was uploaded. This takes it to the Hugging Face Hub, under a name of yours:"
        )
        echo(f"  {upload.format(folder=shlex.quote(str(result.path)))}")


def _show_int8(int8: "Int8Comparison") -> None:
    """Print the file in int8 beside that in float32."""
    images = f"{int8.batch_size} image{'s' * (int8.batch_size > 1)}"
    grid = table("", f">{scored(int8.split, int8.metric)}", f">{images}", ">file")
    sizes = int8.float_size, int8.size
    for name, score, seconds, size in zip(
        ("float32", "int8"),
        (int8.float_score, int8.score),
        (int8.float_seconds, int8.seconds),
        sizes,
        strict=True,
    ):
        grid.add_row(name, percent(score), f"{1000 * seconds:.3g} ms", f"{amount(size)}B")
    echo()
    console.print(grid)
    left = f"; in float32: {', '.join(int8.float_layers)}" if int8.float_layers else ""
    echo(
        f"\nInt8 takes {int8.ratio:.2f} of float32's time, the median of turns, {int8.machine}. "
        f"Quantized are {int8.layers - len(int8.float_layers)} of {int8.layers} layers{left}."
    )


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
