"""`selfdistill anytime`: early-exit inference with a run's network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..records import split_name
from ..runs.terminal import console, percent
from .console import amount, echo, echo_stderr, table
from .options import points_as_part

if TYPE_CHECKING:
    from ..data import ImageData
    from ..early_exit.threshold_table import HeldOutDecisions, ThresholdRow
    from ..early_exit.thresholds import Threshold
    from ..runs.run import Run

_LOSSES = "0,0.5,1,2"
_SECONDS = 20.0  # for all latencies


def anytime(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of the run.")],
    max_loss: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS",
            help="Allowed loss of accuracy on the validation images; several with commas.",
            show_default=_LOSSES,
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIDENCE",
            help="Confidence thresholds: one for all exits, or one each with commas; "
            "'none' disables an exit.",
        ),
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="ONNX file to export to as well.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads for the latencies.", show_default="all"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="the run's")
    ] = None,
) -> None:
    """Measure early-exit inference: each image leaves at the first confident exit."""
    import torch

    from ..core.machine import describe_machine
    from ..costs.latency import torch_threads
    from ..early_exit.network import check_image_labels
    from ..early_exit.threshold_table import (
        FILE,
        anytime_csv,
        held_out_decisions,
        threshold_row,
        threshold_warnings,
        with_latencies,
    )
    from ..engine.run_directory import RunDirectory
    from ..runs.paths import check_finished, load_recipe

    check_finished(run)
    check_image_labels(load_recipe(run).task)
    losses = _losses(max_loss if threshold or max_loss else _LOSSES)
    if onnx:
        _check_file(onnx, len(losses) + bool(threshold))
    trained, data = _loaded(run, device)
    echo(f"{run} · {trained.recipe.method} · {trained.recipe.model}")
    if trained.recipe.precision != "fp32":
        echo(f"Scores here are in fp32; the run's own are in {trained.recipe.precision}.", "dim")
    echo("running all exits on the held-out images …", "dim")
    decisions = held_out_decisions(trained.method, data, workers=trained.recipe.num_workers)
    rows = _rows(decisions, losses, threshold)
    echo("measuring …\n", "dim")
    with torch_threads(threads or torch.get_num_threads()):
        rows = [threshold_row(decisions, (None,) * len(decisions.exits)), *rows]
        rows = with_latencies(rows, trained.method, data, seconds=_SECONDS)
        machine = describe_machine(next(trained.method.parameters()).device.type)
    _show(rows, decisions, machine)
    _report_unused_exits(rows[1:], decisions)
    for warning in threshold_warnings(rows, decisions):
        echo_stderr("warning", warning)
    text = anytime_csv(rows, decisions.exits, machine)
    written = [RunDirectory(run).write(FILE, text)]
    if onnx:
        written.append(_write_onnx(onnx, rows[-1], trained, data))
    echo("\nWritten:")
    for file in written:
        echo(f"  {file}")


def _losses(text: str | None) -> list[float]:
    """Points as fractions, in their order."""
    points = _numbers(text, "--max-loss", "0,0.5,1 (in points)") if text else []
    return [points_as_part(p or 0.0, "--max-loss") for p in dict.fromkeys(points)]


def _numbers(text: str, option: str, example: str, *, none: bool = False) -> "list[Threshold]":
    from ..core import ConfigError

    items = [item.strip().lower() for item in text.split(",")]
    try:
        return [None if none and item == "none" else float(item) for item in items]
    except ValueError:
        raise ConfigError(f"{option} takes numbers such as {example}, not '{text}'") from None


def _check_file(onnx: Path, choices: int) -> None:
    """Raise unless there is one choice of thresholds and the file is new."""
    from ..core import ConfigError, RunBusyError

    if choices != 1:
        raise ConfigError(
            "an ONNX file holds one choice of thresholds; say which, by --max-loss 1 or "
            "--threshold 0.9"
        )
    if onnx.exists():
        raise RunBusyError(f"{onnx} exists already; name another file by --onnx, or remove it")
    if not onnx.parent.is_dir():
        raise ConfigError(f"there is no folder {onnx.parent} to write {onnx.name} into")


def _loaded(run: Path, device: str | None) -> "tuple[Run, ImageData]":
    from ..recipe.build_run import load_run_data
    from ..recipe.make_fabric import make_fabric
    from ..recipe.schema import parse
    from ..runs.paths import load_recipe
    from ..runs.run import load

    local = {"devices": 1, "num_nodes": 1, "precision": "fp32"} | (
        {"device": device} if device else {}
    )
    recipe = parse(load_recipe(run).model_dump() | local)
    fabric, data = make_fabric(recipe), load_run_data(recipe)
    trained = load(run, data=data)
    trained.method.to(fabric.device)
    return trained, trained.data


def _rows(
    decisions: "HeldOutDecisions", losses: list[float], threshold: str | None
) -> "list[ThresholdRow]":
    from ..early_exit.threshold_table import calibrated_row, threshold_row
    from ..early_exit.thresholds import as_thresholds

    rows = [calibrated_row(decisions, loss) for loss in losses]
    if threshold:
        numbers = _numbers(threshold, "--threshold", "0.9 or 0.9,0.8,none", none=True)
        thresholds = as_thresholds(numbers[0] if len(numbers) == 1 else numbers, decisions.exits)
        rows.append(threshold_row(decisions, thresholds))
    return rows


def _show(rows: "list[ThresholdRow]", decisions: "HeldOutDecisions", machine: str) -> None:
    exits, splits = decisions.exits, list(decisions.splits)
    columns = [f">{name}" for name in (*exits, "student", *splits)]
    grid = table("allowed loss", *columns, ">MACs", ">latency")
    student_macs = rows[0].reported.macs
    for row in rows:
        *shares, student_share = row.reported.shares
        macs = row.reported.macs
        grid.add_row(
            _choice(row),
            *(_exit_cell(t, share) for t, share in zip(row.thresholds, shares, strict=True)),
            percent(student_share),
            *(percent(row.outcomes[split].accuracy) for split in splits),
            f"{amount(macs)} ({100 * macs / max(1, student_macs):.0f} %)",
            _latency(row, rows[0]),
        )
    console.print(grid)
    split = split_name(splits[-1])
    echo(
        f"\nAt an exit: the confidence that an image leaves with, and the share of the {split} "
        "images that does.",
        "dim",
    )
    echo(
        f"MACs and latency: mean of the {split} images, one at a time; in brackets the part of the "
        f"student's, timed in turns; {machine}.",
        "dim",
    )


def _choice(row: "ThresholdRow") -> str:
    if row.max_loss is not None:
        return f"{100 * row.max_loss:g} point{'' if row.max_loss == 0.01 else 's'}"
    return "given" if any(t is not None for t in row.thresholds) else "student alone"


def _exit_cell(threshold: "Threshold", share: float) -> str:
    return "–" if threshold is None else f"{threshold:.2f}: {100 * share:.0f} %"


def _latency(row: "ThresholdRow", student: "ThresholdRow") -> str:
    if row.seconds is None or student.seconds is None:
        return "–"
    return f"{1000 * row.seconds:.2f} ms ({100 * row.seconds / student.seconds:.0f} %)"


def _report_unused_exits(rows: "list[ThresholdRow]", decisions: "HeldOutDecisions") -> None:
    """Tell of thresholds by which no image leaves early."""
    for row in rows:
        if row.reported.shares[-1] < 1:
            continue
        used = [k for k, t in enumerate(row.thresholds) if t is not None]
        if not used:
            echo(
                f"\nAt a loss of {_choice(row)} no exit saves anything on the validation images: "
                "every image takes the whole network."
            )
            continue
        confidence = list(decisions.splits.values())[-1].confidence
        highest = {k: float(confidence[:, k].max()) for k in used}
        best = max(used, key=highest.__getitem__)
        echo_stderr(
            "warning",
            "no exit is as sure of any image as its threshold asks: all run to the end, and the "
            f"exits only add to the cost; the surest is {decisions.exits[best]} with "
            f"{highest[best]:.4f}",
        )


def _write_onnx(onnx: Path, row: "ThresholdRow", trained: "Run", data: "ImageData") -> Path:
    from ..early_exit.network import build_early_exit_network
    from ..early_exit.onnx_export import export_early_exit_onnx

    echo("\nwriting the ONNX file, and running it on all held-out images …", "dim")
    network = build_early_exit_network(trained.method, row.thresholds).cpu()
    agreement = export_early_exit_onnx(network, data, onnx)
    matched = f"{agreement.matched:,} of them"
    if agreement.matched == agreement.images:
        matched = "all of them"
    echo(
        f"Verified on {agreement.images:,} images: the same exit and class for {matched}; logits "
        f"differ by {agreement.difference:.1e} at most."
    )
    return onnx
