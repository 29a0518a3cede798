"""`selfdistill exits`: what every exit is worth, what it costs, and which beat the baseline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import (
    amount,
    console,
    echo,
    percent,
    scored,
    table,
)

if TYPE_CHECKING:
    from ..functional.statistics import PairedDifference
    from ..records.exit_measurements import ExitMeasurement, ExitMeasurements

_WORDS = {"val": "validation", "test": "test"}
_COSTS = {"honest": "Costs of what runs", "paper": "Costs as MUSE's Table 3 counts them"}


def exits(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of the run.")],
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The run to compare with.",
            show_default="one beside it, of the same recipe without distillation",
        ),
    ] = None,
    cost: Annotated[
        str,
        typer.Option(
            metavar="[honest|paper]",
            help="Count what runs, or convolutions as MUSE's Table 3 does.",
        ),
    ] = "honest",
    batch: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Images of a timed pass; may be repeated.", show_default="1 and 32"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the processor, for timing.", show_default="all")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="the run's")
    ] = None,
) -> None:
    """Judge and measure every exit of a run, and compare it with the run without distillation."""
    from ..engine.run_directory import RunDirectory
    from ..records.exit_measurements import FILE
    from ..reporting.exit_chart import write_exit_chart
    from ..reporting.run_page import write_report
    from ..runs.measure_exits import measure_exits

    found = measure_exits(
        run,
        baseline=baseline,
        counting=cost,
        batches=list(dict.fromkeys(batch or (1, 32))),
        thread_count=threads,
        device=device,
        say=lambda sentence: echo(sentence, "dim"),
    )
    _show(found)
    _compare(found, run)
    for note in found.notes:
        echo(f"Note: {note}.")
    directory = RunDirectory(run)
    directory.write(FILE, found.to_csv())
    pictures = [write_exit_chart(directory)] if found.splits else []
    echo("\nWritten:")
    for place in (run / FILE, *pictures, write_report(directory)):
        echo(f"  {place}")


def _show(found: "ExitMeasurements") -> None:
    """All that was measured; the front is starred."""
    devices = len({device for device, _ in found.passes})
    times = [f">{device if devices > 1 else 'batch'} {batch}" for device, batch in found.passes]
    splits = [f">{scored(split, found.metric)}" for split in found.splits]
    sure = [">ECE"] if any(row.ece for row in found.rows) else []
    several_rows = len(found.rows) > 1
    name = "exit" if any(row.predictor.startswith("exit") for row in found.rows) else "network"
    made = table("", name, *splits, *sure, ">params", ">MACs", ">file", *times)
    for row in [*found.rows, *([found.baseline] if found.baseline else [])]:
        star = "*" if row.front and several_rows else ""
        made.add_row(star, row.predictor, *_cells(row, found, ece=bool(sure)))
    echo()
    console.print(made)
    echo()
    if found.splits and several_rows:
        from ..tasks.metric_names import shown_metric

        judged = f"{_WORDS[found.splits[0]]} {shown_metric(found.metric)}"
        echo(f"* Pareto front by MACs and {judged}", "dim")
    echo(f"{_COSTS[found.about['cost']]}; times are medians, {found.about['machine']}", "dim")


def _cells(row: "ExitMeasurement", found: "ExitMeasurements", *, ece: bool) -> list[str]:
    times = [row.seconds.get(which) for which in found.passes]
    return [
        *(percent(row.scores[split]) for split in found.splits),
        *([percent(row.ece.get(found.splits[-1]))] if ece else []),
        amount(row.cost.parameters),
        amount(row.cost.macs),
        "–" if row.size is None else f"{amount(row.size)}B",
        *("–" if time is None else f"{1000 * time:.2f} ms" for time in times),
    ]


def _compare(found: "ExitMeasurements", run: Path) -> None:
    """Each exit against the baseline, image by image."""
    from ..runs.baseline import baseline_command

    if found.baseline is None:
        if command := baseline_command(run):
            echo("\nThere is no baseline beside this run to compare with; this trains it:")
            echo(f"  {command}")
        return
    paired = any(row.against for row in found.rows)
    over = ", with 95 % intervals over the images" if paired else ""
    echo(f"\nAgainst {found.about['baseline']}, in points{over}:\n")
    made = table("", *(scored(split, found.metric) for split in found.splits))
    for row in found.rows:
        made.add_row(row.predictor, *(_cell(row, found.baseline, s) for s in found.splits))
    console.print(made)
    if found.splits and not paired:
        echo(
            "\nThe score is one number of all images and has no interval over them; several seeds "
            "tell what is noise: selfdistill compare."
        )
    elif found.splits:
        echo(f"\n{_conclusion(found, found.baseline, found.splits[-1])}")


def _cell(row: "ExitMeasurement", baseline: "ExitMeasurement", split: str) -> str:
    """A difference, with its interval where there is one."""
    if split not in row.scores or split not in baseline.scores:
        return "–"
    if split in row.against:
        return _difference(row.against[split])
    return f"{100 * (row.scores[split] - baseline.scores[split]):+.1f}"


def _difference(paired: "PairedDifference") -> str:
    low, high = (100 * end for end in paired.interval)
    return f"{100 * paired.mean:+.1f} ({low:+.1f} … {high:+.1f}) {_word(paired)}"


def _word(paired: "PairedDifference") -> str:
    if paired.interval.holds(0):
        return "within noise"
    return "better" if paired.mean > 0 else "worse"


def _conclusion(found: "ExitMeasurements", baseline: "ExitMeasurement", split: str) -> str:
    """Which exits beat the baseline beyond noise, and at which part of its cost."""
    sentences, whole = [], max(1, baseline.cost.macs)
    for word in ("better", "worse"):
        named = [
            f"{row.predictor} ({100 * row.cost.macs / whole:.0f} % of its MACs)"
            for row in found.rows
            if split in row.against and _word(row.against[split]) == word
        ]
        if named:
            sentences.append(f"{word.capitalize()} beyond noise on {split}: {', '.join(named)}.")
        elif word == "better":
            sentences.append(f"Nothing beats the baseline beyond noise on {split}.")
    return " ".join(sentences)
