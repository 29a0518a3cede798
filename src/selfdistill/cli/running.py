"""A run from the first line on the screen to the last."""

import logging
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from .progress import Terminal
from .screen import OUT, amount, line, rank_zero, show_exits

if TYPE_CHECKING:
    from ..api import Run
    from ..data import ImageData
    from ..recipe.schema import Recipe


def run(recipe: "Recipe", place: Path, *, resume: bool) -> None:
    """Train, and tell of it if this process is the one that talks."""
    from ..api import run_recipe
    from ..engine.fit import Interrupted
    from ..recipe.build import load_data

    # lightning greets from every process; what matters it warns of
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        if not rank_zero():
            run_recipe(recipe, out=place, resume=resume)
            return
        data = load_data(recipe)
        introduce(recipe, data, place)
        with Terminal(recipe.epochs) as display:
            done = run_recipe(recipe, out=place, resume=resume, display=display, data=data)
    except Interrupted as stop:
        if rank_zero():
            line(f"\n{stop}, and all is saved; go on with\n  {_command('train --resume', place)}")
        raise SystemExit(128 + stop.number) from None
    conclude(done)


def introduce(recipe: "Recipe", data: "ImageData", place: Path) -> None:
    """One block: what is trained, by what, on what, where."""
    import torch

    auto = "cuda" if torch.cuda.is_available() else "cpu"
    device = auto if recipe.device == "auto" else recipe.device
    parts = {"train": data.train, "val": data.val, "test": data.test}
    sizes = ", ".join(f"{len(images):,} {name}" for name, images in parts.items() if images)
    shape = " × ".join(str(side) for side in data.train.shape)
    many = f" × {recipe.devices * recipe.nodes}" if recipe.devices * recipe.nodes > 1 else ""
    block = Table.grid(padding=(0, 2))
    block.add_column(style="bold")
    block.add_column(overflow="fold")
    block.add_row("method", recipe.method)
    block.add_row("network", f"{recipe.model} · {_parameters(recipe, data)}")
    block.add_row("data", f"{data.name} · {sizes} · {len(data.classes)} classes · {shape}")
    block.add_row("device", f"{device}{many} · {recipe.precision}")
    block.add_row("run", str(place))
    OUT.print(block, "")


def _parameters(recipe: "Recipe", data: "ImageData") -> str:
    """Counted on a network without memory, which costs next to nothing."""
    import torch

    from ..models import build

    classes, channels = len(data.classes), data.train.shape[0]
    make = partial(build, recipe.model, num_classes=classes, in_channels=channels)
    try:
        with torch.device("meta"):
            network = make()
    except RuntimeError:  # some of torchvision's compute their widths with tensors
        network = make()
    return f"{amount(sum(p.numel() for p in network.parameters()))} parameters"


def conclude(done: "Run") -> None:
    """The exits, the files, and what to do next."""
    line()
    show_exits(done.exits)
    files = ("report.html", "exits.csv", "metrics.jsonl", "recipe.toml", "checkpoints")
    there = [done.path / name for name in files if (done.path / name).exists()]
    line("\nWritten:")
    for place in there:
        line(f"  {place}{'/' if place.is_dir() else ''}")
    line("\nNext: open the report in a browser, or judge the run again:")
    line(f"  {_command('evaluate', done.path)}")


def _command(words: str, place: Path) -> str:
    return f"selfdistill {words} {shlex.quote(str(place))}"
