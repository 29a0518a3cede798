"""`selfdistill information`: what the modules of networks tell of each other."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from .console import console, echo, table

if TYPE_CHECKING:
    from ..information import EstimatorConfig, InformationResult

_WHAT, _HOW = "What", "How"


def _option(panel: str, meaning: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=meaning, rich_help_panel=panel, **more)


def information(
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|RUN…",
            help="Directories of runs, or networks by name; several are compared.",
        ),
    ],
    runs: Annotated[
        list[str] | None, _option(_WHAT, "Further runs or networks.", metavar="RUN…")
    ] = None,
    data: Annotated[
        str | None,
        _option(
            _WHAT,
            "A data set's name, folder:PATH or npz:FILE.",
            show_default="the first run's, or digits",
        ),
    ] = None,
    taps: Annotated[
        str | None,
        _option(
            _WHAT, "Where modules end; see selfdistill taps.", show_default="the run's, or auto"
        ),
    ] = None,
    weights: Annotated[
        str, _option(_WHAT, "Of networks by name: 'pretrained' or a weights file.")
    ] = "",
    image_size: Annotated[
        int | None,
        _option(_WHAT, "Side of the images in pixels.", min=1, show_default="the run's"),
    ] = None,
    trainable: Annotated[
        bool,
        _option(_HOW, "Train a copy of each network along, by its labels and MI.", "--trainable"),
    ] = False,
    critic: Annotated[str, _option(_HOW, "separable, concat or global.")] = "separable",
    width: Annotated[
        int | None, _option(_HOW, "Of the critics.", min=1, show_default="the critic's own")
    ] = None,
    estimator: Annotated[str, _option(_HOW, "jsd, infonce, dv or nwj.")] = "jsd",
    steps: Annotated[int, _option(_HOW, "In which critics learn.", min=1)] = 400,
    batch_size: Annotated[int, _option(_HOW, "Images a step.", min=2)] = 128,
    lr: Annotated[float, _option(_HOW, "The critics' highest learning rate.")] = 5e-3,
    seed: Annotated[int, _option(_HOW, "Of critics, order and negatives.", min=0)] = 0,
    seeds: Annotated[
        int, _option(_HOW, "Measure so often, from --seed on; gives ± and bands.", min=1)
    ] = 1,
    device: Annotated[str, _option(_HOW, "auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[
        Path | None, _option(_HOW, "A folder.", show_default="the next free information…")
    ] = None,
) -> None:
    """Measure what each module of a network tells of the last one, and of itself.

    Critics alone are trained on the features of networks that stay as they are, and judged on
    images held out from them (Figures 2 and 3 of MUSE, for any network).
    """
    from ..information import EstimatorConfig, estimate_information
    from ..information.page import check_free, save
    from ..recipe.build_run import make_fabric
    from ..recipe.schema import parse
    from ..runs.networks import networks_under_test

    place = out or _next_free()
    check_free(place)
    plan = EstimatorConfig(
        steps=steps,
        seeds=range(seed, seed + seeds),
        batch_size=batch_size,
        lr=lr,
        critic=critic,
        width=width,
        estimator=estimator,
        trainable=trainable,
        device=make_fabric(parse({"device": device})).device,
    )
    first, *rest = networks
    names = [first, *(runs or []), *rest]  # --runs A B hands B to the arguments
    chosen, images = networks_under_test(
        names, data=data, taps=taps, weights=weights, image_size=image_size, seed=seed
    )
    echo(f"{images.name} · {steps} steps · {'trainable' if trainable else 'frozen'} networks\n")
    with _Watch(list(chosen), plan) as watch:
        found = estimate_information(chosen, images, plan, watch=watch)
    _show(found)
    echo("\nWritten:")
    for written in save(found, place):
        echo(f"  {written}")


def _next_free() -> Path:
    place, n = Path("information"), 1
    while place.exists():
        n += 1
        place = Path(f"information-{n}")
    return place


class _Watch:
    """A bar for the network at hand on a terminal, else a line for each."""

    def __init__(self, networks: list[str], plan: "EstimatorConfig") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.plan = plan
        columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn())
        self.bar = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self.all = self.bar.add_task("", total=plan.steps * len(networks) * len(plan.seeds))

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def __call__(self, network: str, seed: int, step: int) -> None:
        """One more step is done."""
        where = f"{network}, seed {seed}" if len(self.plan.seeds) > 1 else network
        self.bar.update(self.all, advance=1, description=where)
        if step == self.plan.steps:
            console.print(f"{where}: done", soft_wrap=True)


def _show(found: "InformationResult") -> None:
    """The held-out losses, and how to read them."""
    from ..information.page import amount, named, ordered

    made = table("held-out loss", *(f">{network}" for network in found.networks))
    for term in ordered(found):
        cells = (
            amount(found.final(network, term)) if term in found.terms(network) else "–"
            for network in found.networks
        )
        made.add_row(named(term), *cells)
    echo()
    console.print(made)
    known = "2 ln 2 = " if found.plan.estimator == "jsd" else ""
    echo(
        f"\nBy {found.held_out}. Lower is more information; {known}{found.chance:.3f} is chance.",
    )
    echo("MI: of a module's cells with the last feature. SI: with their own mean.", "dim")
