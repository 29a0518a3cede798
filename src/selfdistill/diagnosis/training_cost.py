"""Time and memory, predicted from a few steps that are taken and thrown away."""

import itertools
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor

from ..core import ResourceError, trained_state
from ..data import Loader
from ..engine.evaluate import evaluate
from ..engine.optimizer import optimizer_tensors
from ..engine.run_directory import RunDirectory
from ..engine.trainer import Trainer
from ..recipe.build_run import RunComponents, eval_loader, training_settings

_WARM_UP, _FEWEST, _MOST = 3, 5, 30  # steps
_JUDGED = 256  # images that the speed of judging is measured by
_KEPT = 3  # checkpoints on the disk at a time: the last two, and the one that is being written
_FULL = 0.9  # of the memory


class Speed(NamedTuple):
    """Seconds, the data's loading included.

    Attributes:
        first: of the first step, in which memory is reserved and code compiled.
        step: median of an optimizer step after the warm-up.
        slowest, fastest: of these steps.
        measured: how many these were.
        image: of judging one image, by all predictors.
        epoch: a whole epoch; its validation included where there is one.
        run: all epochs, and the judging at the end.
    """

    first: float
    step: float
    slowest: float
    fastest: float
    measured: int
    image: float
    epoch: float
    run: float


class Memory(NamedTuple):
    """Bytes.

    Attributes:
        peak: the most that was taken at a time.
        where: of what.
        whole: how many there are; None where the system does not say.
    """

    peak: int
    where: str
    whole: int | None


class TrainingCost(NamedTuple):
    """What a run takes.

    Attributes:
        speed: how long.
        memory: how much.
        steps: optimizer steps of an epoch.
        epochs: of the run.
        processes: that would share a step, of which one was measured, alone.
        optimizer: bytes of its state.
        checkpoint: bytes of one.
        disk: bytes that are free where the run would lie.
        warnings: what to do about it, in sentences.
    """

    speed: Speed
    memory: Memory
    steps: int
    epochs: int
    processes: int
    optimizer: int
    checkpoint: int
    disk: int
    warnings: list[str]


def measure_training_cost(
    parts: RunComponents,
    fabric: Fabric,
    batches: Loader,
    place: Path,
    *,
    seconds: float = 15.0,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainingCost:
    """Take real steps: 3 to warm up, then 5 to 30, as many as fit the time.

    Args:
        parts: what would be trained; the steps move its weights.
        fabric: of one process.
        batches: as training loads them.
        place: where the run would lie; nothing is written there.
        seconds: for all measured steps together.
        clock: what tells the time, in seconds.

    Raises:
        DivergenceError: a loss or a gradient is not finite.
    """
    recipe, data, method = parts.recipe, parts.data, parts.method
    # Never at its end, so that it has no line to log and no checkpoint to write.
    endless = replace(
        training_settings(recipe), epochs=recipe.epochs + 1_000_000, log_every=1 << 60, save_every=0
    )
    _reset_peak(fabric.device)
    fit = Trainer(fabric, method, parts.task, batches, None, endless, RunDirectory(place))
    times = _timed(fit, batches, seconds, clock)
    held = [part for part in (data.val, data.test) if part is not None]
    judged = held[0].take(torch.arange(min(len(held[0]), _JUDGED))) if held else None
    image = 0.0
    if judged is not None:
        began = clock()
        evaluate(fabric, method, parts.task, eval_loader(recipe, data, judged, fabric))
        image = (clock() - began) / len(judged)
    speed = _predicted(parts, times, image, batches.steps_per_epoch)
    optimizer = _bytes(optimizer_tensors(fit.optimizer, method).values())
    weights = _bytes(trained_state(method).values())
    checkpoint = weights * (2 if fit.ema else 1) + optimizer
    memory, disk = _peak(fabric.device), shutil.disk_usage(existing(place)).free
    return TrainingCost(
        speed,
        memory,
        batches.steps_per_epoch,
        recipe.epochs,
        recipe.devices * recipe.nodes,
        optimizer,
        checkpoint,
        disk,
        _on_memory(memory),
    )


def _timed(
    fit: Trainer, batches: Loader, seconds: float, clock: Callable[[], float]
) -> list[float]:
    fit.method.train()
    times: list[float] = []
    began = clock()
    for epoch in itertools.count():
        start = clock()
        for micro_batches in batches.epoch(epoch):
            fit.step(epoch, micro_batches)
            times.append(clock() - start)
            start = clock()
            if len(times) == _WARM_UP:
                began = start
            enough = len(times) >= _WARM_UP + _FEWEST and start - began > seconds
            if enough or len(times) == _WARM_UP + _MOST:
                return times
    raise AssertionError


def _predicted(parts: RunComponents, times: list[float], image: float, steps: int) -> Speed:
    recipe, data = parts.recipe, parts.data
    warm = times[_WARM_UP:]
    step = statistics.median(warm)
    val, test = (0 if part is None else len(part) for part in (data.val, data.test))
    processes = recipe.devices * recipe.nodes
    judging = image * val / processes
    looks = -(-recipe.epochs // recipe.val_every)
    start = max(0.0, times[0] - step)
    run = start + recipe.epochs * steps * step
    run += looks * judging + image * (val + test) / processes
    return Speed(
        times[0], step, max(warm), min(warm), len(warm), image, steps * step + judging, run
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what went before is no part of it
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> Memory:
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        return Memory(torch.cuda.max_memory_reserved(device), "of the GPU's", whole)
    if device.type == "mps":
        whole = torch.mps.recommended_max_memory()
        return Memory(torch.mps.driver_allocated_memory(), "of the GPU's", whole)
    try:
        import resource
    except ImportError:  # Windows
        return Memory(0, "not known on this system", None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Memory(peak, "of the machine's, program and images included", whole)


def _on_memory(memory: Memory) -> list[str]:
    if memory.whole is None or memory.peak < _FULL * memory.whole:
        return []
    return [
        f"{memory.peak / memory.whole:.0%} of the memory is taken; lower --batch-size, or split it "
        "by --set accumulate=2"
    ]


def existing(place: Path) -> Path:
    """The place, or the nearest folder above it that is there."""
    place = place.absolute()
    return next(folder for folder in (place, *place.parents) if folder.exists())


def check_disk(cost: TrainingCost, place: Path) -> None:
    """Raises `ResourceError` if the checkpoints of a run do not fit where it would lie."""
    needed = _KEPT * cost.checkpoint
    if cost.disk < needed:
        raise ResourceError(
            f"the checkpoints of {place} take {needed / 1e6:,.0f} MB and {cost.disk / 1e6:,.0f} MB "
            "are free; make room, or choose another --out"
        )
