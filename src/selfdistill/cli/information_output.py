"""Output of `selfdistill information`: progress of the critics, and their losses."""

from collections.abc import Collection
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..information import EstimatorConfig, InformationCallback, InformationResult
from ..information.page import amount, named, ordered
from ..runs.terminal import console
from .console import echo, table


class InformationScreen(InformationCallback):
    """A progress bar on a terminal, and a line for each network and seed that is measured."""

    def __init__(self, networks: Collection[str], config: EstimatorConfig) -> None:
        self.config = config
        columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn())
        self.bar = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        total = config.steps * len(networks) * len(config.seeds)
        self.task_id = self.bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def on_step(self, network: str, seed: int, step: int) -> None:
        """Move the bar."""
        label = f"{network}, seed {seed}" if len(self.config.seeds) > 1 else network
        self.bar.update(self.task_id, advance=1, description=label)
        if step == self.config.steps:
            console.print(f"{label}: done", soft_wrap=True)


def show_information(result: InformationResult) -> None:
    """Print the held-out losses, and how to read them."""
    losses = table("held-out loss", *(f">{network}" for network in result.networks))
    for term in ordered(result):
        cells = (
            amount(result.final(network, term)) if term in result.terms(network) else "–"
            for network in result.networks
        )
        losses.add_row(named(term), *cells)
    echo()
    console.print(losses)
    formula = "2 ln 2 = " if result.config.estimator == "jsd" else ""
    chance = f"{formula}{result.chance:.3f} is chance"
    echo(f"\nOn {result.held_out}. A lower loss is more information; {chance}.")
    echo("MI: of the cells of a module's feature map about the last feature.", "dim")
    echo("SI: of the cells of a module's feature map about their own mean.", "dim")
