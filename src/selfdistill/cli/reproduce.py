"""`selfdistill reproduce`: rows of the papers' tables, trained and compared."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import option_name


def reproduce(
    row: Annotated[
        str, typer.Argument(metavar="[ROW]", help="Row SYSTEM/TABLE/NETWORK/ROW, see --list.")
    ] = "",
    show: Annotated[
        bool, typer.Option("--list", help="List the rows, all or those that match ROW.")
    ] = False,
    recipe: Annotated[
        bool, typer.Option("--recipe", help="Print the row's complete recipe as TOML.")
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Train, resume and evaluate the row on noise in seconds; without ROW one row of "
            "each system.",
        ),
    ] = False,
    tables: Annotated[
        list[Path] | None,
        typer.Option(
            "--table",
            metavar="FILE",
            help="TOML file with rows of your own, in the form of those of the papers.",
        ),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Python module or file to import first."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Number of runs, with seeds 0, 1, …", show_default="3")
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            help="Fraction of the training images to hold out, for the score of the best epoch.",
            show_default="the row's, mostly 0",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set of the row as folder:PATH, csv:FILE, npz:FILE, wds:SHARDS or hf:SET.",
            show_default="the row's",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device: auto, cpu, cuda or mps.", show_default="auto")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of all runs.", show_default="runs/reproduce")
    ] = None,
) -> None:
    """Train a row of the papers' tables, and compare its scores with the published ones."""
    from ..engine.quiet_lightning import quiet_lightning
    from ..recipe.plugins import import_plugins
    from ..reproduction.ledger import add_table_file, find_row, matching_rows, smoke_test_rows
    from ..reproduction.reproduce import reproduce as train_row
    from ..signals import Interrupted
    from . import reproduce_output as output
    from .console import echo

    modes = [name for name, on in (("list", show), ("recipe", recipe), ("smoke", smoke)) if on]
    training = {
        "seeds": seeds,
        "val_fraction": val_fraction,
        "data": data,
        "device": device,
        "out": out,
    }
    given: dict[str, Any] = {k: value for k, value in training.items() if value is not None}
    _check(row, modes, given)
    import_plugins(imports or ())
    for file in tables or ():
        add_table_file(file)
    if imports and not modes:
        given["imports"] = tuple(imports)
    try:
        if show:
            output.show_rows(matching_rows(row))
        elif recipe:
            echo(find_row(row).to_toml().rstrip())
        elif smoke:
            rows = [find_row(row)] if row else list(smoke_test_rows().values())
            output.run_smoke_tests(rows, device or "auto")
        else:
            with quiet_lightning(), output.ReproductionScreen() as screen:
                reproduction = train_row(row, callback=screen, **given)
            output.show_reproduction(reproduction)
    except Interrupted as stop:
        echo(f"\n{stop}" + ("" if smoke else ", and all is saved; the same command resumes it"))
        raise SystemExit(128 + stop.number) from None


def _check(row: str, modes: list[str], given: dict[str, Any]) -> None:
    """Raises `ConfigError` if the options do not go together."""
    from ..core import ConfigError

    if len(modes) > 1:
        raise ConfigError(f"--{' and --'.join(modes)} ask for different things; give one")
    if not row and modes not in (["list"], ["smoke"]):
        raise ConfigError("which row? reproduce --list shows them all, --smoke checks four of them")
    unused = [key for key in given if modes and not (modes == ["smoke"] and key == "device")]
    if unused:
        names = " and ".join(map(option_name, unused))
        raise ConfigError(f"--{modes[0]} has no use for {names}")
