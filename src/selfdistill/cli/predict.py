"""`selfdistill predict`: classes, masks or boxes of pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..engine.quiet_lightning import quiet_lightning
from ..runs.terminal import console, percent
from .console import echo, echo_stderr, table

if TYPE_CHECKING:
    from ..runs.predictions import Predictions

_FORMATS = ("table", "json", "csv")
_UNREADABLE = 4  # exit code, as of data


def predict(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|FILE", help="Directory of a run, or an exported network or its folder."
        ),
    ],
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURE|FOLDER...", help="Pictures, and folders.")
    ],
    exit: Annotated[
        str | None,
        typer.Option(
            metavar="[auto|N|student|NAME]", help="Predictor of a run.", show_default="student"
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Number of classes of a classified picture.")] = 5,
    min_score: Annotated[float, typer.Option(help="Lowest score of a detected box.")] = 0.25,
    format: Annotated[
        str, typer.Option(metavar="[table|json|csv]", help="Form of the output.")
    ] = "table",
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to make, with a table, drawings and masks."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device of a run: auto, cpu, cuda or mps.", show_default="the run's"),
    ] = None,
) -> None:
    """Predict the classes, masks or boxes of pictures by a run or an exported network."""
    from ..core import ConfigError, nearest

    if format not in _FORMATS:
        raise ConfigError(f"there is no format '{format}'{nearest(format, _FORMATS)}")
    from ..runs.predict import predict as predict_pictures

    options = {"exit": exit, "top": top, "min_score": min_score, "device": device, "save": save}
    with quiet_lightning():
        predictions = predict_pictures(source, pictures, **options)  # type: ignore[arg-type]
    if format == "json":
        echo(predictions.to_json())
    elif format == "csv":
        echo(predictions.to_csv().rstrip("\n"))
    else:
        _show(predictions, save)
    for reason in predictions.unreadable.values():
        echo_stderr("warning", reason)
    if predictions.unreadable:
        raise SystemExit(_UNREADABLE)


def _show(predictions: "Predictions", save: Path | None) -> None:
    """Print a line for each picture, of a detector for each box."""
    show = {"classification": _show_classes, "segmentation": _show_shares}
    show.get(predictions.task, _show_boxes)(predictions)
    if save:
        echo(f"\nWritten: {save}/")


def _show_classes(predictions: "Predictions") -> None:
    grid = table("picture", "class", ">confidence", "then")
    for prediction in predictions:
        (name, confidence), *others = prediction.classes
        rest = ", ".join(f"{other} {percent(score)}" for other, score in others)
        grid.add_row(str(prediction.path), name, percent(confidence), rest)
    console.print(grid)


def _show_shares(predictions: "Predictions") -> None:
    grid = table("picture", "classes and their shares of the picture")
    for prediction in predictions:
        shares = ", ".join(f"{name} {percent(share)}" for name, share in prediction.classes)
        grid.add_row(str(prediction.path), shares)
    console.print(grid)


def _show_boxes(predictions: "Predictions") -> None:
    corners = ("x1", "y1", "x2", "y2")
    grid = table("picture", "class", ">score", *(f">{name}" for name in corners))
    for prediction in predictions:
        for name, score, *box in prediction.boxes:
            numbers = (f"{x:.0f}" for x in box)
            grid.add_row(str(prediction.path), name, f"{score:.2f}", *numbers)
        if not prediction.boxes:
            grid.add_row(str(prediction.path), "–")
    console.print(grid)
