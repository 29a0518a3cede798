"""A run from the first line on the screen to the last."""

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ..runs.progress import TerminalProgress
from ..runs.terminal import rank_zero
from .console import echo, show_exits

if TYPE_CHECKING:
    from ..recipe.schema import Recipe
    from ..runs.run import Run


def train_and_report(
    recipe: "Recipe", place: Path, *, resume: bool, epochs: int | None = None
) -> None:
    """Train, and tell of it if this process is the one that talks.

    `epochs` extends a run that is resumed.
    """
    from ..runs.train import train_recipe
    from ..signals import Interrupted
    from ..tasks import TASKS

    # lightning greets from every process; what matters it warns of
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        if not rank_zero():
            train_recipe(recipe, out=place, resume=resume, epochs=epochs)
            return
        with TerminalProgress(
            epochs or recipe.epochs, TASKS[recipe.task].primary_metric
        ) as callback:
            done = train_recipe(recipe, out=place, resume=resume, epochs=epochs, callback=callback)
    except Interrupted as stop:
        if not (place / "recipe.toml").exists():  # the run had not begun
            raise
        if rank_zero():
            echo(f"\n{stop}, and all is saved; go on with\n  {_command('train --resume', place)}")
        raise SystemExit(128 + stop.number) from None
    print_result(done)


def print_result(done: "Run") -> None:
    """The exits, the files, and what to do next."""
    echo()
    show_exits(done.exits)
    files = (
        "report.html",
        "exits.csv",
        "classes.csv",
        "mistakes.csv",
        "pictures",
        "metrics.jsonl",
        "recipe.toml",
    )
    there = [done.path / name for name in (*files, "checkpoints") if (done.path / name).exists()]
    echo("\nWritten:")
    for place in there:
        echo(f"  {place}{'/' if place.is_dir() else ''}")
    echo("\nNext: open the report in a browser, or evaluate the run again:")
    echo(f"  {_command('evaluate', done.path)}")


def _command(subcommand: str, place: Path) -> str:
    return f"selfdistill {subcommand} {shlex.quote(str(place))}"
