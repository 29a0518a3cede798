"""Evaluate and measure every exit of a run, beside the run without distillation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core import ConfigError, RunBusyError, nearest
from ..core.machine import describe_machine
from ..costs.latency import median_latencies, safetensors_size, torch_threads
from ..costs.macs import NetworkCost, network_cost
from ..costs.paper_macs import paper_network_cost
from ..engine.run_directory import RunDirectory
from ..evaluation import EvaluationSession
from ..export.extract_predictor import extract_predictor
from ..functional.calibration import expected_calibration_error
from ..functional.pareto import pareto_front
from ..functional.statistics import paired_difference
from ..modules.exits import EarlyExit
from ..records import BASELINE
from ..records.exit_measurements import FILE, ExitMeasurement, ExitMeasurements

if TYPE_CHECKING:
    from .run import Run

COUNTS = ("actual", "paper")
"""Ways to count parameters and multiply-adds: of what runs, or as MUSE's Table 3 does."""


def measure_exits(
    run: "Run",
    baseline: "Run | None" = None,
    *,
    count: str = "actual",
    batch_sizes: Sequence[int] = (1, 32),
    num_threads: int | None = None,
    device: str | None = None,
    notes: Sequence[str] = (),
    on_message: Callable[[str], None] = lambda message: None,
) -> ExitMeasurements:
    """Score, calibration, cost, latency and file size of each exit; see `Run.measure_exits`.

    Args:
        run, baseline: what is measured, and what it is compared with, on the same data.
        count, batch_sizes, num_threads, device, on_message: as `Run.measure_exits` has them.
        notes: sentences on the comparison that go into the result.
    """
    session = run.session(device=device)
    epoch = run.state["epoch"]
    notes = [*([f"this run is not finished: {run.unfinished}"] if run.unfinished else []), *notes]
    if len(session.task.output_names) > 1:
        notes.append("times go from images to boxes, and fall where a detector sees fewer of them")
    on_message("evaluating the exits")
    predictors = _evaluated_predictors(session)
    if baseline:
        predictors[BASELINE] = _evaluated_predictors(baseline.session(device=device))["student"]
    for name, evaluated in predictors.items():
        if evaluated.reason:
            notes.append(f"{name} has no latency and no file: {evaluated.reason}")
    devices = list(dict.fromkeys(["cpu", session.fabric.device.type]))
    passes = [(device, batch) for device in devices for batch in batch_sizes]
    example = session.task.example
    with torch_threads(num_threads or torch.get_num_threads()):
        about = _conditions(count, devices, epoch, baseline.path if baseline else None)
        on_message(f"measuring latencies on {about['machine']}")
        seconds = _seconds(predictors, example, passes)
    rows = {
        name: _measurement(name, evaluated, example, count, seconds[name], predictors.get(BASELINE))
        for name, evaluated in predictors.items()
    }
    last = rows.pop(BASELINE, None)
    metric = session.task.primary_metric
    return ExitMeasurements(_with_front(list(rows.values())), last, passes, about, notes, metric)


def save_measurements(run_dir: Path, measurements: ExitMeasurements) -> None:
    """Write the table, its picture and the report into the run's directory."""
    directory = RunDirectory(run_dir)
    directory.write(FILE, measurements.to_csv())
    # these import matplotlib, if it is installed
    from ..reporting.exit_chart import write_exit_chart
    from ..reporting.run_page import write_report

    if measurements.splits:
        write_exit_chart(directory)
    write_report(directory)


def output_files(run_dir: Path, measurements: ExitMeasurements) -> list[Path]:
    """The files that `save_measurements` wrote."""
    chart = ["exits-measured.svg"] if measurements.splits else []
    return [run_dir / name for name in (FILE, *chart, "report.html")]


def check_measurable(run_dir: Path, count: str) -> None:
    """Raises `ConfigError` or `RunBusyError` if the exits of a run cannot be measured like this."""
    if count not in COUNTS:
        raise ConfigError(f"costs cannot be counted '{count}'{nearest(count, COUNTS)}")
    directory = RunDirectory(run_dir)
    directory.recipe()  # raises before the lock makes a folder where no run is
    try:
        with directory.held():
            return
    except RunBusyError:
        raise RunBusyError(
            f"another process is training in {run_dir}; measure its exits when it is done"
        ) from None


@dataclass(frozen=True)
class _SplitScore:
    """Score, calibration error and right answers of a predictor on one split."""

    value: float
    ece: float | None
    correct: Tensor | None  # (N,) bool


@dataclass(frozen=True)
class _EvaluatedPredictor:
    """A predictor in its method, a copy cut out of it or the reason why there is none."""

    predictor: nn.Module
    extracted: nn.Module | None
    reason: str
    scores: dict[str, _SplitScore]


def _evaluated_predictors(session: EvaluationSession) -> dict[str, _EvaluatedPredictor]:
    results = {split: session.evaluate_full(split) for split in session.splits}
    metric = session.task.primary_metric
    evaluated = {}
    for name, predictor in session.method.predictors().items():
        scores = {}
        for split, result in results.items():
            table = result.calibration.get(name)
            ece = None if table is None else expected_calibration_error(table)
            scores[split] = _SplitScore(result.scores[name][metric], ece, result.correct.get(name))
        try:
            extracted, reason = extract_predictor(session.method, name), ""
        except ConfigError as error:
            extracted, reason = None, str(error)
        evaluated[name] = _EvaluatedPredictor(predictor, extracted, reason, scores)
    return evaluated


def _conditions(
    count: str, devices: Sequence[str], epoch: int, baseline: Path | None
) -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "cost": count,
        "epoch": epoch,
        "threads": torch.get_num_threads(),
        "machine": "; ".join(map(describe_machine, devices)),
        "torch": torch.__version__,
        "baseline": str(baseline or ""),
    }


def _seconds(
    predictors: Mapping[str, _EvaluatedPredictor],
    example: Tensor,
    passes: Sequence[tuple[str, int]],
) -> dict[str, dict[tuple[str, int], float]]:
    """{predictor: {(device, batch): median seconds}}."""
    networks = {
        n: evaluated.extracted for n, evaluated in predictors.items() if evaluated.extracted
    }
    times = {
        (d, batch): median_latencies(networks, example, batch, device=d) for d, batch in passes
    }
    return {
        name: {p: medians[name] for p, medians in times.items() if name in medians}
        for name in predictors
    }


def _measurement(
    name: str,
    evaluated: _EvaluatedPredictor,
    example: Tensor,
    count: str,
    seconds: Mapping[tuple[str, int], float],
    baseline: _EvaluatedPredictor | None,
) -> ExitMeasurement:
    differences = {}
    for split, score in evaluated.scores.items():
        reference = baseline.scores[split].correct if baseline and name != BASELINE else None
        if score.correct is not None and reference is not None:
            differences[split] = paired_difference(score.correct, reference)
    return ExitMeasurement(
        predictor=name,
        cost=_cost(evaluated.predictor, example, count),
        size=safetensors_size(evaluated.extracted) if evaluated.extracted else None,
        seconds=seconds,
        scores={split: score.value for split, score in evaluated.scores.items()},
        ece={s: score.ece for s, score in evaluated.scores.items() if score.ece is not None},
        against=differences,
    )


def _cost(predictor: nn.Module, example: Tensor, count: str) -> NetworkCost:
    if count == "actual":
        return network_cost(predictor, example)
    if isinstance(predictor, EarlyExit):
        return paper_network_cost(predictor.student.network, example, predictor.name)
    return paper_network_cost(predictor, example)


def _with_front(rows: list[ExitMeasurement]) -> list[ExitMeasurement]:
    """The rows, those on the Pareto front marked: by validation images where there are any."""
    scores = [next(iter(row.scores.values()), None) for row in rows]
    on_front = pareto_front([row.cost.macs for row in rows], scores)
    return [replace(row, front=mark) for row, mark in zip(rows, on_front, strict=True)]
