"""A run from the first line on the screen to the last."""

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from .progress import Terminal
from .screen import line, rank_zero, show_exits

if TYPE_CHECKING:
    from ..api import Run
    from ..recipe.schema import Recipe


def run(recipe: "Recipe", place: Path, *, resume: bool) -> None:
    """Train, and tell of it if this process is the one that talks."""
    from ..api import run_recipe
    from ..engine.signals import Interrupted
    from ..tasks import TASKS

    # lightning greets from every process; what matters it warns of
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        if not rank_zero():
            run_recipe(recipe, out=place, resume=resume)
            return
        with Terminal(recipe.epochs, TASKS[recipe.task].primary_metric) as display:
            done = run_recipe(recipe, out=place, resume=resume, display=display)
    except Interrupted as stop:
        if rank_zero():
            line(f"\n{stop}, and all is saved; go on with\n  {_command('train --resume', place)}")
        raise SystemExit(128 + stop.number) from None
    conclude(done)


def conclude(done: "Run") -> None:
    """The exits, the files, and what to do next."""
    line()
    show_exits(done.exits)
    files = ("report.html", "exits.csv", "classes.csv", "pictures", "metrics.jsonl", "recipe.toml")
    there = [done.path / name for name in (*files, "checkpoints") if (done.path / name).exists()]
    line("\nWritten:")
    for place in there:
        line(f"  {place}{'/' if place.is_dir() else ''}")
    line("\nNext: open the report in a browser, or judge the run again:")
    line(f"  {_command('evaluate', done.path)}")


def _command(words: str, place: Path) -> str:
    return f"selfdistill {words} {shlex.quote(str(place))}"
