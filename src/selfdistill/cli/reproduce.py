"""`selfdistill reproduce`: the rows of the papers' tables, made again."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import console, echo, table
from .progress import TerminalProgress

if TYPE_CHECKING:
    from ..records.exit_scores import ExitScore
    from ..reproduction.gap import ReportedGap
    from ..reproduction.paper_row import PaperRow
    from ..reproduction.reported_value import ReportedValue
    from ..reproduction.reproduce import PlannedRun, ReproducedScore


def reproduce(
    row: Annotated[
        str, typer.Argument(metavar="[ROW]", help="SYSTEM/TABLE/NETWORK/ROW, see --list.")
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
            "--smoke", help="Check the row's whole path in seconds; without ROW one of each system."
        ),
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(help="How many runs, with seeds 0, 1, …", show_default="3")
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(
            help="Hold out a share of the training images to see the best epoch by.",
            show_default="the row's, mostly 0",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Where the data lie, folder:PATH or npz:FILE.", show_default="the row's"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="auto")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where runs are kept.", show_default="runs/reproduce")
    ] = None,
) -> None:
    """Make a row of the papers' tables again, and hold it against what was published."""
    training = {"seeds": seeds, "val": val, "data": data, "device": device, "out": out}
    given: dict[str, Any] = {k: value for k, value in training.items() if value is not None}
    what = [name for name, asked in (("list", show), ("recipe", recipe), ("smoke", smoke)) if asked]
    _check(row, what, given)
    if show:
        _list(row)
    elif recipe:
        _recipe(row)
    elif smoke:
        _smoke(row, **given)
    else:
        _reproduce(row, **given)


def _check(row: str, what: list[str], given: dict[str, Any]) -> None:
    """Whether the options go together."""
    from ..core import ConfigError

    if len(what) > 1:
        raise ConfigError(f"--{' and --'.join(what)} ask for different things; give one")
    if not row and what not in (["list"], ["smoke"]):
        raise ConfigError("which row? reproduce --list shows them all, --smoke checks four of them")
    useless = [key for key in given if what and not (what == ["smoke"] and key == "device")]
    if useless:
        raise ConfigError(f"--{what[0]} has no use for --{' and --'.join(useless)}")
    if given.get("seeds", 1) < 1:
        raise ConfigError(f"--seeds {given['seeds']} makes no run; give 1 or more")


def _list(pattern: str) -> None:
    from ..reproduction.ledger import matching
    from ..reproduction.reproduce import ours

    rows = matching(pattern)
    if len(rows) == 1:
        echo("\n".join(_about(rows[0])))
        return
    lines = [
        (r.name, short(r.published), short(ours(r)), "no" if r.obstacle else "yes") for r in rows
    ]
    if not console.is_terminal:  # one a line, for grep and its kin
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for cells in lines:
            echo("  ".join(f"{c:{w}}" for c, w in zip(cells, widths, strict=True)).rstrip())
        return
    made = table("row", "published", "ours", "runs")
    for cells in lines:
        made.add_row(*cells)
    console.print(made)
    echo(f"\n{len(rows)} rows, of which {sum(not r.obstacle for r in rows)} can be run.")
    for reason, how_many in Counter(row.obstacle for row in rows if row.obstacle).items():
        echo(f"no, {how_many}: {reason}", "dim")
    echo("selfdistill reproduce --list ROW tells all that is known of a row.", "dim")


def short(figures: "Mapping[str, ReportedValue]") -> str:
    """The figures that stand for a row: of the student, of a pair, or of the one exit there is."""
    if len(figures) == 1:
        ((name, figure),) = figures.items()
        return f"{figure}" if name == "student" else f"{name} {figure}"
    pair = [f"{f}" for name, f in figures.items() if name == "student" or name.startswith("peer")]
    return " / ".join(pair) or "–"


def _about(row: "PaperRow") -> list[str]:
    """All that is known of a row, a line each."""
    from ..reproduction.reproduce import ours

    measured = ", ".join(f"{who} {f} (n={f.n})" for who, f in ours(row).items())
    return [*row.about(), f"Ours, last epoch, test: {measured or 'not measured yet'}"]


def _recipe(name: str) -> None:
    from ..reproduction.ledger import find

    echo(find(name).text().rstrip())


def _smoke(name: str, device: str = "auto") -> None:
    from ..engine.signals import Interrupted
    from ..reproduction.ledger import find, systems

    rows = [find(name)] if name else list(systems().values())
    failed = 0
    start = time.perf_counter()
    try:
        for row in rows:
            with TemporaryDirectory() as folder, quiet():
                failed += _smoke_row(row, Path(folder), device)
    except Interrupted as stop:
        echo(f"\n{stop}")
        raise SystemExit(128 + stop.number) from None
    seconds = time.perf_counter() - start
    echo(f"\n{len(rows) - failed} of {len(rows)} rows passed, {seconds:.0f} s")
    if failed:
        raise SystemExit(1)


def _smoke_row(row: "PaperRow", folder: Path, device: str) -> bool:
    """Whether a row fell over; a line for each step of it."""
    from ..reproduction.smoke import smoke
    from .errors import error_message

    echo(f"\n{row.name}", "bold")
    for check in smoke(row, folder, device):
        if check.fault:
            words = error_message(check.fault)[0] or f"{type(check.fault).__name__}: {check.fault}"
            echo(f"  {check.step:9} failed: {' '.join(words.split())}", "red")
            return True
        echo(f"  {check.step:9} ok  {check.seconds:5.1f} s  {check.found}")
    return False


def _reproduce(
    name: str, *, seeds: int = 3, out: Path | None = None, **changes: str | float
) -> None:
    from ..engine.signals import Interrupted
    from ..reproduction.ledger import find
    from ..reproduction.paper_row import ROOT
    from ..reproduction.reproduce import outcomes, plan, write_result

    row = find(name)
    runs = plan(row, seeds, out or ROOT, **changes)
    echo("\n".join(_about(row)))
    try:
        found = {run.place: _train(run) for run in runs}
    except Interrupted as stop:
        echo(f"\n{stop}, and all is saved; the same command goes on with it")
        raise SystemExit(128 + stop.number) from None
    own = {run.place: found[run.place] for run in runs[-seeds:]}
    results = outcomes(row, own)
    _show(row, results, seeds)
    echo(f"\nWritten: {write_result(row, results, runs[-seeds:])}")


def _train(run: "PlannedRun") -> "list[ExitScore]":
    """Train one of the runs, unless it is there already."""
    from ..runs.training import load_or_train_exits

    done = (run.place / "exits.csv").exists()
    echo(f"\n{run.row.name}, seed {run.recipe.seed}{': trained already' if done else ''}", "bold")
    with quiet(), TerminalProgress(run.recipe.epochs) as callback:
        return load_or_train_exits(run.recipe, run.place, callback=callback)


def _show(row: "PaperRow", results: "list[ReproducedScore]", seeds: int) -> None:
    """Ours beside theirs."""
    best = any(each.best for each in results)
    columns = ["predictor", ">published", ">last epoch, test", ">ours − published", "verdict"]
    made = table(*columns, *([">best epoch, validation"] if best else []))
    for each in results:
        published = "–" if each.published is None else f"{each.published}"
        compared = [_gap(each.gap), each.gap.verdict.value] if each.gap else ["–", ""]
        made.add_row(
            each.predictor,
            published,
            f"{each.last}",
            *compared,
            *([f"{each.best}"] if best else []),
        )
    echo(f"\n{row.metric}, mean ± standard deviation of n = {seeds}", "bold")
    console.print(made)
    echo(f"\nThe published figures' epoch: {row.epoch}.")
    if not best:
        echo("No image was held out, so there is no best epoch; --val 0.1 holds out a tenth.")


def _gap(gap: "ReportedGap") -> str:
    """`+0.31`, with as much as noise reaches."""
    return f"{gap.difference:+.2f}" + (f" (± {gap.reach:.2f})" if gap.reach is not None else "")


@contextmanager
def quiet() -> Iterator[None]:
    """Without lightning's greetings; what matters it warns of."""
    logger = logging.getLogger("lightning_fabric")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
