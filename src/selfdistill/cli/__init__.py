"""The command `selfdistill`, one file per command.

Nothing here imports torch until a command runs and needs it, so that help and mistyped options are
answered at once. Of the other floors only the fields of a recipe are imported, which are options.
"""

import os
from typing import Annotated

import typer

from .anytime import anytime
from .compare import compare
from .doctor import DoctorCommand, doctor
from .errors import handle_errors
from .evaluate import evaluate
from .exits import exits
from .export import export
from .information import information
from .measure import measure
from .methods import methods
from .models import models
from .predict import predict
from .reproduce import reproduce
from .taps import taps
from .train import train

app = typer.Typer(
    name="selfdistill",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    train,
    anytime,
    compare,
    doctor,
    evaluate,
    exits,
    export,
    information,
    measure,
    methods,
    models,
    predict,
    reproduce,
    taps,
):
    app.command(cls=DoctorCommand if _command is doctor else None)(handle_errors(_command))


def main() -> None:
    """The entry point of the console script and of `python -m selfdistill`."""
    # What torch's C++ says of its own workings is for its developers; it is read at import.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    app()


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"selfdistill {version('selfdistill')}")
        raise typer.Exit


@app.callback()
def selfdistill(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train vision networks to be better at the same cost by letting them teach themselves.

    Try [bold]selfdistill train[/]: it trains a small network on handwritten digits in a minute.
    """
