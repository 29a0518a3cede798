"""`selfdistill exits`: what every exit is worth, what it costs, and which beat the baseline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..records import split_name
from ..runs.terminal import console, percent, scored
from .console import amount, difference_text, echo, noise_label, table
from .options import TimedBatchSizes, TimingThreads

if TYPE_CHECKING:
    from ..records.exit_measurements import ExitMeasurement, ExitMeasurements

_COUNTS = {"actual": "Costs of what runs", "paper": "Costs as MUSE's Table 3 counts them"}


def exits(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of the run.")],
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Directory of the run to compare with.",
            show_default="one beside it, of the same recipe without distillation",
        ),
    ] = None,
    count: Annotated[
        str,
        typer.Option(
            metavar="[actual|paper]",
            help="What parameters and MACs are counted of: what runs, or convolutions as MUSE's "
            "Table 3 does.",
        ),
    ] = "actual",
    batch_size: TimedBatchSizes = None,
    threads: TimingThreads = None,
    device: Annotated[
        str | None, typer.Option(help="Device: auto, cpu, cuda or mps.", show_default="the run's")
    ] = None,
) -> None:
    """Evaluate and measure every exit of a run, and compare it with the undistilled run."""
    from ..runs.measure_exits import check_measurable, output_files
    from ..runs.run import load

    check_measurable(run, count)  # before the data are loaded
    measurements = load(run).measure_exits(
        baseline=baseline,
        count=count,
        batch_sizes=list(dict.fromkeys(batch_size or (1, 32))),
        num_threads=threads,
        device=device,
        on_message=lambda message: echo(message, "dim"),
    )
    _show(measurements)
    _compare(measurements, run)
    for note in measurements.notes:
        echo(f"Note: {note}.")
    echo("\nWritten:")
    for file in output_files(run, measurements):
        echo(f"  {file}")


def _show(measured: "ExitMeasurements") -> None:
    """All that was measured; the Pareto front is starred."""
    devices = len({device for device, _ in measured.passes})
    times = [f">{device if devices > 1 else 'batch'} {batch}" for device, batch in measured.passes]
    splits = [f">{scored(split, measured.metric)}" for split in measured.splits]
    ece = [">ECE"] if any(row.ece for row in measured.rows) else []
    several_rows = len(measured.rows) > 1
    exits = any(row.predictor.startswith("exit") for row in measured.rows)
    name = "exit" if exits else "network"
    grid = table("", name, *splits, *ece, ">params", ">MACs", ">file", *times)
    for row in [*measured.rows, *([measured.baseline] if measured.baseline else [])]:
        star = "*" if row.front and several_rows else ""
        grid.add_row(star, row.predictor, *_cells(row, measured, ece=bool(ece)))
    echo()
    console.print(grid)
    echo()
    if measured.splits and several_rows:
        from ..tasks.metric_names import shown_metric

        metric = f"{split_name(measured.splits[0])} {shown_metric(measured.metric)}"
        echo(f"* Pareto front by MACs and {metric}", "dim")
    about = measured.about
    echo(f"{_COUNTS[about['cost']]}; times are medians, {about['machine']}", "dim")


def _cells(row: "ExitMeasurement", measured: "ExitMeasurements", *, ece: bool) -> list[str]:
    times = [row.seconds.get(timed) for timed in measured.passes]
    return [
        *(percent(row.scores[split]) for split in measured.splits),
        *([percent(row.ece.get(measured.splits[-1]))] if ece else []),
        amount(row.cost.parameters),
        amount(row.cost.macs),
        "–" if row.size is None else f"{amount(row.size)}B",
        *("–" if time is None else f"{1000 * time:.2f} ms" for time in times),
    ]


def _compare(measured: "ExitMeasurements", run: Path) -> None:
    """Each exit against the baseline, image by image."""
    from ..runs.baseline import baseline_command

    if measured.baseline is None:
        if command := baseline_command(run):
            echo("\nThere is no baseline beside this run to compare with; this trains it:")
            echo(f"  {command}")
        return
    paired = any(row.against for row in measured.rows)
    over = ", with 95 % intervals over the images" if paired else ""
    echo(f"\nAgainst {measured.about['baseline']}, in points{over}:\n")
    grid = table("", *(scored(split, measured.metric) for split in measured.splits))
    for row in measured.rows:
        grid.add_row(row.predictor, *(_cell(row, measured.baseline, s) for s in measured.splits))
    console.print(grid)
    if measured.splits and not paired:
        echo(
            "\nThe score is one number of all images and has no interval over them; several seeds "
            "tell what is noise: selfdistill compare."
        )
    elif measured.splits:
        echo(f"\n{_conclusion(measured, measured.baseline, measured.splits[-1])}")


def _cell(row: "ExitMeasurement", baseline: "ExitMeasurement", split: str) -> str:
    """A difference, with its interval where there is one."""
    if split not in row.scores or split not in baseline.scores:
        return "–"
    if split in row.against:
        return difference_text(row.against[split])
    return f"{100 * (row.scores[split] - baseline.scores[split]):+.1f}"


def _conclusion(measured: "ExitMeasurements", baseline: "ExitMeasurement", split: str) -> str:
    """Which exits beat the baseline beyond noise, and at which part of its cost."""
    sentences, total = [], max(1, baseline.cost.macs)
    for label in ("better", "worse"):
        names = [
            f"{row.predictor} ({100 * row.cost.macs / total:.0f} % of its MACs)"
            for row in measured.rows
            if split in row.against and noise_label(row.against[split]) == label
        ]
        if names:
            sentences.append(f"{label.capitalize()} beyond noise on {split}: {', '.join(names)}.")
        elif label == "better":
            sentences.append(f"Nothing beats the baseline beyond noise on {split}.")
    return " ".join(sentences)
