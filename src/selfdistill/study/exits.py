"""Judge and measure every exit of a run, beside the run without distillation."""

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..api import Run, load
from ..core import ConfigError, RunBusyError, nearest
from ..data import ImageData
from ..engine import checkpoint
from ..engine.evaluate import evaluate_full
from ..engine.run_directory import RunDirectory
from ..export.cost import Cost, cost
from ..export.measure import latencies, size_on_disk, threads
from ..export.network import bare
from ..export.paper_cost import paper_cost
from ..functional.calibration import expected_calibration_error
from ..functional.pareto import pareto_front
from ..modules.exits import EarlyExit
from ..recipe.build import eval_loader, load_data, make_fabric
from ..recipe.schema import Recipe, parse
from ..running import recipe_of
from ..tasks import TASKS, make_task
from .baseline import check_comparable, matched_baseline, paired_images
from .measured import BASELINE, SPLITS, Measured, MeasuredExit

COUNTINGS = ("honest", "paper")


def measure(
    place: Path,
    *,
    baseline: Path | None = None,
    counting: str = "honest",
    batches: Sequence[int] = (1, 32),
    thread_count: int | None = None,
    device: str | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Measured:
    """Score, calibration, cost, latency and size of each exit, by the newest checkpoint.

    Args:
        place: the run's directory.
        baseline: the run to compare with; None takes a finished one beside it that differs in the
            method alone, if there is one.
        counting: of parameters and multiply-adds, "honest" or "paper"; see docs/guide/exits.md.
        batches: how many images a pass has whose latency is measured.
        thread_count: of the processor, for the latencies; None takes as many as torch does.
        device: where to judge, and to measure latencies beside the CPU's; None is the run's.
        say: is told what is being done.

    Raises:
        ConfigError: there is no run or no checkpoint, or the baseline cannot be compared with it.
        RunBusyError: it is being trained.
        ArtifactError: its checkpoints are corrupt or of a newer version.
    """
    if counting not in COUNTINGS:
        raise ConfigError(f"costs cannot be counted '{counting}'{nearest(counting, COUNTINGS)}")
    recipe = _here(place, device)
    _check_idle(place)
    fabric, data = make_fabric(recipe), load_data(recipe)
    epoch, notes = _standing(place, recipe)
    if not TASKS[data.task].class_scores:
        notes.append("times go from images to boxes, and fall where a detector sees fewer of them")
    if baseline := baseline or matched_baseline(place):
        notes += check_comparable(place, recipe, baseline)
    say("judging the exits")
    subjects = _judged(load(place, data=data), recipe, data, fabric)
    if baseline:
        theirs = _judged(load(baseline, data=data), recipe, data, fabric)
        subjects[BASELINE] = theirs["student"]
    for name, subject in subjects.items():
        if subject.excuse:
            notes.append(f"{name} has no latency and no file: {subject.excuse}")
    where = list(dict.fromkeys(["cpu", fabric.device.type]))
    passes = [(device, batch) for device in where for batch in batches]
    example = torch.zeros(2, *data.train.shape)
    with threads(thread_count or torch.get_num_threads()):
        about = _about(counting, where, epoch, baseline)
        say(f"measuring latencies on {about['machine']}")
        seconds = _seconds(subjects, example, passes)
    rows = {
        name: _row(name, subject, example, counting, seconds[name], subjects.get(BASELINE))
        for name, subject in subjects.items()
    }
    last = rows.pop(BASELINE, None)
    about["notes"] = "; ".join(notes)
    metric = TASKS[data.task].primary_metric
    return Measured(_with_front(list(rows.values())), last, passes, about, notes, metric)


def _here(place: Path, device: str | None) -> Recipe:
    """The run's recipe for one process of this machine."""
    own = recipe_of(place).model_dump() | {"devices": 1, "nodes": 1}
    return parse(own | ({"device": device} if device else {}))


def _check_idle(place: Path) -> None:
    try:
        with RunDirectory(place).held():
            return
    except RunBusyError:
        raise RunBusyError(
            f"another process is training in {place}; measure its exits when it is done"
        ) from None


def _standing(place: Path, recipe: Recipe) -> tuple[int, list[str]]:
    """How many epochs the newest checkpoint has seen, and a sentence if the run is not finished."""
    if (place / "exits.csv").exists():
        return recipe.epochs, []
    found = checkpoint.newest(place / "checkpoints")
    epoch = found.state["epoch"] if found else 0
    return epoch, [
        f"this run is not finished: it stands at epoch {epoch} of {recipe.epochs}; "
        f"selfdistill train --resume {place} goes on"
    ]


class _Score(NamedTuple):
    """What one split says of one predictor."""

    value: float
    ece: float | None
    correct: Tensor | None  # (N,) bool


class _Subject(NamedTuple):
    """A predictor in its method, cut out of it or why it cannot be, and what the splits say."""

    predictor: nn.Module
    alone: nn.Module | None
    excuse: str
    scores: dict[str, _Score]


def _judged(run: Run, recipe: Recipe, data: ImageData, fabric: Fabric) -> dict[str, _Subject]:
    task = make_task(data.task, data.classes, data.train.shape)
    method = run.method.to(fabric.device)
    verdicts = {
        split: evaluate_full(fabric, method, task, eval_loader(recipe, data, images, fabric))
        for split, images in zip(SPLITS, (data.val, data.test), strict=True)
        if images is not None
    }
    found = {}
    for name, predictor in method.predictors().items():
        scores = {}
        for split, verdict in verdicts.items():
            tables, score = verdict.calibration, verdict.scores[name][task.primary_metric]
            ece = expected_calibration_error(tables[name]) if name in tables else None
            scores[split] = _Score(score, ece, verdict.correct.get(name))
        try:
            alone, excuse = bare(method, name), ""
        except ConfigError as reason:
            alone, excuse = None, str(reason)
        found[name] = _Subject(predictor, alone, excuse, scores)
    return found


def _about(
    counting: str, where: Sequence[str], epoch: int, baseline: Path | None
) -> dict[str, Any]:
    """What the figures hold for."""
    count = torch.get_num_threads()
    machines = [f"{_processor()}, {count} thread{'s' * (count > 1)}"]
    machines += [torch.cuda.get_device_name() if d == "cuda" else d for d in where[1:]]
    return {
        "cost": counting,
        "epoch": epoch,
        "threads": count,
        "machine": "; ".join(machines),
        "torch": torch.__version__,
        "baseline": str(baseline or ""),
    }


def _processor() -> str:
    """Its name where Linux tells it, else the kind."""
    table = Path("/proc/cpuinfo")
    text = table.read_text(encoding="utf-8") if table.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _seconds(
    subjects: Mapping[str, _Subject], example: Tensor, passes: Sequence[tuple[str, int]]
) -> dict[str, dict[tuple[str, int], float]]:
    """{predictor: {(device, batch): median seconds}}."""
    networks = {name: s.alone for name, s in subjects.items() if s.alone is not None}
    times = {(d, batch): latencies(networks, example, batch, device=d) for d, batch in passes}
    return {
        name: {p: found[name] for p, found in times.items() if name in found} for name in subjects
    }


def _row(
    name: str,
    subject: _Subject,
    example: Tensor,
    counting: str,
    seconds: Mapping[tuple[str, int], float],
    baseline: _Subject | None,
) -> MeasuredExit:
    against = {}
    for split, score in subject.scores.items():
        theirs = baseline.scores[split].correct if baseline and name != BASELINE else None
        if score.correct is not None and theirs is not None:
            against[split] = paired_images(score.correct, theirs)
    return MeasuredExit(
        predictor=name,
        cost=_cost(subject.predictor, example, counting),
        size=size_on_disk(subject.alone) if subject.alone else None,
        seconds=seconds,
        scores={split: score.value for split, score in subject.scores.items()},
        ece={s: score.ece for s, score in subject.scores.items() if score.ece is not None},
        against=against,
    )


def _cost(predictor: nn.Module, example: Tensor, counting: str) -> Cost:
    if counting == "honest":
        return cost(predictor, example)
    if isinstance(predictor, EarlyExit):
        return paper_cost(predictor.student.network, example, predictor.name)
    return paper_cost(predictor, example)


def _with_front(rows: list[MeasuredExit]) -> list[MeasuredExit]:
    """The rows, those on the front marked: by validation images where there are any."""
    scores = [next(iter(row.scores.values()), None) for row in rows]
    marks = pareto_front([row.cost.macs for row in rows], scores)
    return [replace(row, front=mark) for row, mark in zip(rows, marks, strict=True)]
