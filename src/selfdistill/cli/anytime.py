"""`selfdistill anytime`: let each image leave a run's network at the first exit that is sure."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import (
    amount,
    console,
    echo,
    echo_stderr,
    percent,
    table,
)

if TYPE_CHECKING:
    from ..data import ImageData
    from ..early_exit.threshold_table import HeldOutDecisions, ThresholdRow
    from ..early_exit.thresholds import Threshold
    from ..runs.run import Run

_LOSSES = "0,0.5,1,2"
_SECONDS = 20.0  # to measure all rows


def anytime(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of the run.")],
    max_loss: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS",
            help="Accuracy that may be lost on the validation images; some, with commas.",
            show_default=_LOSSES,
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIDENCE",
            help="Thresholds of your own: one for all exits, or one each with commas; "
            "'none' leaves an exit out.",
        ),
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as this ONNX file, too.")
    ] = None,
    num_threads: Annotated[
        int | None,
        typer.Option(min=1, help="Of the processor, for timing.", show_default="all"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="the run's")
    ] = None,
) -> None:
    """Let each image leave at the first exit that is sure of it: what that saves, and costs."""
    import torch

    from ..costs.latency import num_threads as computing_with
    from ..early_exit.network import check_image_labels
    from ..early_exit.threshold_table import (
        FILE,
        anytime_csv,
        held_out_decisions,
        threshold_row,
        with_latencies,
    )
    from ..engine.run_directory import RunDirectory
    from ..export.package import check_finished
    from ..runs.paths import load_recipe

    check_finished(run)
    check_image_labels(load_recipe(run).task)
    losses = _losses(max_loss if threshold or max_loss else _LOSSES)
    if onnx:
        _check_file(onnx, len(losses) + bool(threshold))
    trained, data = _loaded(run, device)
    echo(f"{run} · {trained.recipe.method} · {trained.recipe.model}")
    echo("asking all exits about the held-out images …", "dim")
    judged = held_out_decisions(trained.method, data, workers=trained.recipe.num_workers)
    rows = _rows(judged, losses, threshold)
    echo("measuring …\n", "dim")
    with computing_with(num_threads or torch.get_num_threads()):
        rows = [threshold_row(judged, (None,) * len(judged.exits)), *rows]
        rows = with_latencies(rows, trained.method, data, seconds=_SECONDS)
        where = _where(trained)
    _show(rows, judged, where)
    _say_what_is_idle(rows[1:], judged)
    text = anytime_csv(rows, judged.exits, where)
    written = [RunDirectory(run).write(FILE, text)]
    if onnx:
        written.append(_write_onnx(onnx, rows[-1], trained, data))
    echo("\nWritten:")
    for place in written:
        echo(f"  {place}")


def _losses(text: str | None) -> list[float]:
    """Points as parts of all images, in their order."""
    points = _numbers(text, "--max-loss", "0,0.5,1 (in points)") if text else []
    return [(p or 0.0) / 100 for p in dict.fromkeys(points)]


def _numbers(text: str, option: str, example: str, *, none: bool = False) -> "list[Threshold]":
    from ..core import ConfigError

    words = [word.strip().lower() for word in text.split(",")]
    try:
        return [None if none and word == "none" else float(word) for word in words]
    except ValueError:
        raise ConfigError(f"{option} takes numbers such as {example}, not '{text}'") from None


def _check_file(onnx: Path, choices: int) -> None:
    """One choice of thresholds, and a place that is free."""
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
    from ..recipe.build_run import load_data, make_fabric
    from ..recipe.schema import parse
    from ..runs.paths import load_recipe
    from ..runs.run import load

    here = {"devices": 1, "num_nodes": 1, "precision": "fp32"} | (
        {"device": device} if device else {}
    )
    recipe = parse(load_recipe(run).model_dump() | here)
    fabric, data = make_fabric(recipe), load_data(recipe)
    trained = load(run, data=data)
    trained.method.to(fabric.device)
    return trained, data


def _rows(
    judged: "HeldOutDecisions", losses: list[float], threshold: str | None
) -> "list[ThresholdRow]":
    from ..early_exit.threshold_table import calibrated_row, threshold_row
    from ..early_exit.thresholds import as_thresholds

    rows = [calibrated_row(judged, loss) for loss in losses]
    if threshold:
        each = _numbers(threshold, "--threshold", "0.9 or 0.9,0.8,none", none=True)
        own = as_thresholds(each[0] if len(each) == 1 else each, judged.exits)
        rows.append(threshold_row(judged, own))
    return rows


def _where(trained: "Run") -> str:
    import torch

    device = next(trained.method.parameters()).device
    if device.type != "cpu":
        return str(device)
    count = torch.get_num_threads()
    return f"cpu, {count} thread{'s' if count > 1 else ''}"


def _show(rows: "list[ThresholdRow]", judged: "HeldOutDecisions", where: str) -> None:
    exits, parts = judged.exits, list(judged.parts)
    columns = [f">{name}" for name in (*exits, "student", *parts)]
    made = table("allowed loss", *columns, ">MACs", ">latency")
    whole = rows[0].told.macs
    for row in rows:
        *shares, stayed = row.told.shares
        made.add_row(
            _choice(row),
            *(_way(t, share) for t, share in zip(row.thresholds, shares, strict=True)),
            percent(stayed),
            *(percent(row.outcomes[part].accuracy) for part in parts),
            f"{amount(row.told.macs)} ({100 * row.told.macs / max(1, whole):.0f} %)",
            _time(row, rows[0]),
        )
    console.print(made)
    part = {"val": "validation", "test": "test"}[parts[-1]]
    echo(
        f"\nAt an exit: the confidence that an image leaves with, and the share of the {part} "
        "images that does.",
        "dim",
    )
    echo(
        f"MACs and latency: mean of the {part} images, one at a time; in brackets the part of the "
        f"student's, timed in turns; {where}.",
        "dim",
    )


def _choice(row: "ThresholdRow") -> str:
    if row.max_loss is not None:
        return f"{100 * row.max_loss:g} point{'' if row.max_loss == 0.01 else 's'}"
    return "given" if any(t is not None for t in row.thresholds) else "student alone"


def _way(threshold: "Threshold", share: float) -> str:
    return "–" if threshold is None else f"{threshold:.2f}: {100 * share:.0f} %"


def _time(row: "ThresholdRow", student: "ThresholdRow") -> str:
    if row.seconds is None or student.seconds is None:
        return "–"
    return f"{1000 * row.seconds:.2f} ms ({100 * row.seconds / student.seconds:.0f} %)"


def _say_what_is_idle(rows: "list[ThresholdRow]", judged: "HeldOutDecisions") -> None:
    """Where no image leaves early, say so."""
    for row in rows:
        if row.told.shares[-1] < 1:
            continue
        asked = [k for k, t in enumerate(row.thresholds) if t is not None]
        if not asked:
            echo(
                f"\nAt a loss of {_choice(row)} no exit saves anything on the validation images: "
                "every image takes the whole network."
            )
            continue
        watched = list(judged.parts.values())[-1]
        highest = {k: float(watched.confidence[:, k].max()) for k in asked}
        best = max(asked, key=highest.__getitem__)
        echo_stderr(
            "warning",
            "no exit is as sure of any image as its threshold asks: all run to the end, and the "
            f"exits only add to the cost; the surest is {judged.exits[best]} with "
            f"{highest[best]:.4f}",
        )


def _write_onnx(onnx: Path, row: "ThresholdRow", trained: "Run", data: "ImageData") -> Path:
    from ..early_exit.network import build_early_exit_network
    from ..early_exit.onnx_export import export_early_exit_onnx

    echo("\nwriting the ONNX file, and running it on all held-out images …", "dim")
    network = build_early_exit_network(trained.method, row.thresholds).cpu()
    agreement = export_early_exit_onnx(network, data, onnx)
    same = "all of them" if agreement.same == agreement.images else f"{agreement.same:,} of them"
    echo(
        f"Verified on {agreement.images:,} images: the same exit and class for {same}; logits "
        f"differ by {agreement.difference:.1e} at most."
    )
    return onnx
