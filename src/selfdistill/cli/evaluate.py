"""`selfdistill evaluate`: evaluate a run again, on its own data or on other."""

from pathlib import Path
from typing import Annotated

import typer

from .console import echo, show_exits


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of the run.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Other data with the same classes; all of them, if none are held out.",
            show_default="the run's",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="[val|test]",
            help="Part of the data to evaluate by.",
            show_default="test if there is one",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device: auto, cpu, cuda or mps.", show_default="the run's"),
    ] = None,
) -> None:
    """Evaluate every exit of a run by its newest checkpoint."""
    from ..runs.run import load
    from ..runs.without_images import load_without_images

    trained = load_without_images(run) if data else load(run)
    evaluation = trained.evaluate(split, data=data, device=device)
    echo(f"{run} · {trained.recipe.method} · {trained.recipe.model}")
    notes = [f"{evaluation.num_images} images", *filter(None, [evaluation.conversion])]
    echo(" · ".join([evaluation.data, evaluation.split, *notes]))
    if trained.unfinished:
        echo(f"The run is not finished: {trained.unfinished}")
    echo()
    show_exits(evaluation.exits)
