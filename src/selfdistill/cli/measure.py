"""`selfdistill measure`: score, latency, size and cost of an exported file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..records import split_name
from ..runs.terminal import console, percent, scored
from .console import amount, echo, table
from .options import TimedBatchSizes, TimingThreads

if TYPE_CHECKING:
    from ..runs.measure import FileMeasurement

_FORMATS = ("table", "json")


def measure(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An exported file with a graph, or its folder.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Data with the same classes to score the file by.",
            show_default="those on the model card",
        ),
    ] = None,
    batch_size: TimedBatchSizes = None,
    threads: TimingThreads = None,
    format: Annotated[
        str, typer.Option(metavar="[table|json]", help="Form of the output.")
    ] = "table",
) -> None:
    """Score an exported file on all test images, and time it on this machine."""
    from ..errors import ConfigError, nearest

    if format not in _FORMATS:
        raise ConfigError(f"there is no format '{format}'{nearest(format, _FORMATS)}")
    if not file.exists():
        raise ConfigError(f"there is no exported network {file}")
    from ..runs.measure import BATCH_SIZES
    from ..runs.measure import measure as measure_file

    measured = measure_file(
        file, data=data, batch_sizes=batch_size or BATCH_SIZES, num_threads=threads
    )
    if format == "json":
        echo(measured.to_json())
    else:
        _show(measured)


def _show(measured: "FileMeasurement") -> None:
    """Print the file's line, and what it holds for."""
    times = [f">{size} image{'s' * (size > 1)}" for size in measured.seconds]
    score = f">{scored(measured.split, measured.metric)}"
    grid = table("file", score, ">parameters", ">MACs", ">size", *times)
    costs = measured.parameters, measured.macs
    grid.add_row(
        f"{measured.predictor} ({measured.format})",
        percent(measured.score),
        *("–" if cost is None else amount(cost) for cost in costs),
        f"{amount(measured.size)}B",
        *(f"{1000 * seconds:.3g} ms" for seconds in measured.seconds.values()),
    )
    console.print(grid)
    split = split_name(measured.split)
    echo(
        f"\nScored on {measured.images:,} {split} images of {measured.data}; times are medians, "
        f"{measured.machine}.",
        "dim",
    )
