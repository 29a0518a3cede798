"""Time and memory of training, predicted from a few steps that are discarded."""

import itertools
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from ..core import ResourceError, trained_state
from ..data.targets import Embeddings
from ..engine.evaluate import evaluate
from ..engine.optimizer_state import optimizer_tensors
from ..engine.protocols import Batches
from ..engine.run_directory import RunDirectory
from ..engine.trainer import Trainer
from ..recipe.build_run import RunComponents
from ..recipe.loaders import eval_loader

_WARM_UP, _MIN_STEPS, _MAX_STEPS = 3, 5, 30
_MAX_EVALUATED = 256  # images that the speed of evaluation is measured on
_NUM_CHECKPOINTS = 3  # on the disk at a time: the last two, and the one that is being written
_MAX_MEMORY_FRACTION = 0.9


@dataclass(frozen=True)
class Speed:
    """Seconds, the loading of the data included.

    Attributes:
        first_step: in which memory is reserved and code compiled.
        step: median of an optimizer step after the warm-up.
        slowest, fastest: of these steps.
        num_steps: number of these steps.
        image: evaluation of one image by all predictors.
        epoch: one epoch, with its validation where there is one.
        run: all epochs, and the evaluation at the end.
    """

    first_step: float
    step: float
    slowest: float
    fastest: float
    num_steps: int
    image: float
    epoch: float
    run: float


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        peak: largest amount in use.
        kind: which memory it is.
        total: size of that memory; None where the system does not say.
    """

    peak: int
    kind: str
    total: int | None


@dataclass(frozen=True)
class TrainingCost:
    """Time, memory and disk space of a run.

    Attributes:
        speed: in seconds.
        memory: in bytes.
        steps: optimizer steps of an epoch.
        epochs: of the run.
        processes: number of processes of the run, of which one was measured, alone.
        optimizer_bytes: size of the optimizer's state.
        checkpoint_bytes: size of a checkpoint.
        free_disk_bytes: free space at the run directory.
        warnings: sentences with a remedy.
    """

    speed: Speed
    memory: Memory
    steps: int
    epochs: int
    processes: int
    optimizer_bytes: int
    checkpoint_bytes: int
    free_disk_bytes: int
    warnings: list[str]


def measure_training_cost(
    components: RunComponents,
    fabric: Fabric,
    batches: Batches,
    run_dir: Path,
    *,
    seconds: float = 15.0,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainingCost:
    """Take training steps: 3 to warm up, then 5 to 30, as many as fit the time.

    Args:
        components: of the run; the steps move its weights.
        fabric: of one process.
        batches: training loader.
        run_dir: directory of the run; nothing is written there.
        seconds: limit for all measured steps together.
        clock: returns the time in seconds.

    Raises:
        DivergenceError: a loss or a gradient is not finite.
    """
    recipe, method = components.recipe, components.method
    # Neither at its start nor at its end: it has no line to log and no checkpoint to write.
    endless = {"epochs": recipe.epochs + 1_000_000, "log_every_steps": 1 << 60}
    settings = recipe.model_copy(update={**endless, "save_every_steps": 0})
    _reset_peak(fabric.device)
    directory = RunDirectory(run_dir)
    trainer = Trainer(
        fabric,
        method,
        components.task,
        batches,
        None,
        settings,
        directory,
        tuning=components.tuning,
    )
    trainer.global_step = 1
    step_seconds = _time_steps(trainer, batches, seconds, clock)
    image_seconds = _time_evaluation(components, fabric, clock)
    optimizer_bytes = _num_bytes(optimizer_tensors(trainer.optimizer, method).values())
    weight_bytes = _num_bytes(trained_state(method).values()) * (2 if trainer.ema else 1)
    memory = _peak_memory(fabric.device)
    return TrainingCost(
        speed=_predict_speed(components, step_seconds, image_seconds, batches.steps_per_epoch),
        memory=memory,
        steps=batches.steps_per_epoch,
        epochs=recipe.epochs,
        processes=recipe.devices * recipe.num_nodes,
        optimizer_bytes=optimizer_bytes,
        checkpoint_bytes=weight_bytes + optimizer_bytes,
        free_disk_bytes=shutil.disk_usage(nearest_existing(run_dir)).free,
        warnings=_memory_warnings(memory),
    )


def _time_steps(
    trainer: Trainer, batches: Batches, seconds: float, clock: Callable[[], float]
) -> list[float]:
    """Seconds of each step, those of the warm-up included."""
    trainer.method.train()
    step_seconds: list[float] = []
    warm_start = clock()
    for epoch in itertools.count():
        start = clock()
        for micro_batches in batches.epoch(epoch):
            trainer.step(epoch, micro_batches)
            step_seconds.append(clock() - start)
            start = clock()
            if len(step_seconds) == _WARM_UP:
                warm_start = start
            num_measured = len(step_seconds) - _WARM_UP
            timeout = num_measured >= _MIN_STEPS and start - warm_start > seconds
            if timeout or num_measured == _MAX_STEPS:
                return step_seconds
    raise AssertionError


def _time_evaluation(
    components: RunComponents, fabric: Fabric, clock: Callable[[], float]
) -> float:
    """Seconds that the evaluation of one image takes, 0 without held-out images."""
    recipe, data = components.recipe, components.data
    images = data.test if data.val is None else data.val
    if images is None:
        return 0.0
    images = images.spread(_MAX_EVALUATED)
    if components.task.embeddings:  # which the teacher is asked for when a run starts
        unknown = torch.zeros(len(images), len(components.task.classes))
        images = images.with_targets(Embeddings(images.labels, unknown))
    start = clock()
    loader = eval_loader(recipe, data, images, fabric)
    evaluate(fabric, components.method, components.task, loader)
    return (clock() - start) / len(images)


def _predict_speed(
    components: RunComponents, step_seconds: list[float], image_seconds: float, steps: int
) -> Speed:
    recipe, data = components.recipe, components.data
    measured = step_seconds[_WARM_UP:]
    step = statistics.median(measured)
    num_val, num_test = (0 if part is None else len(part) for part in (data.val, data.test))
    processes = recipe.devices * recipe.num_nodes
    validation = image_seconds * num_val / processes
    num_validations = -(-recipe.epochs // recipe.val_every_epochs)
    compilation = max(0.0, step_seconds[0] - step)
    training = compilation + recipe.epochs * steps * step + num_validations * validation
    return Speed(
        first_step=step_seconds[0],
        step=step,
        slowest=max(measured),
        fastest=min(measured),
        num_steps=len(measured),
        image=image_seconds,
        epoch=steps * step + validation,
        run=training + image_seconds * (num_val + num_test) / processes,
    )


def _num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()  # of earlier work
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> Memory:
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return Memory(torch.cuda.max_memory_reserved(device), "of the GPU's", total)
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return Memory(torch.mps.driver_allocated_memory(), "of the GPU's", total)
    try:
        import resource
    except ImportError:  # Windows
        return Memory(0, "not known on this system", None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Memory(peak, "of the machine's, program and images included", total)


def _memory_warnings(memory: Memory) -> list[str]:
    if memory.total is None or memory.peak < _MAX_MEMORY_FRACTION * memory.total:
        return []
    return [
        f"{memory.peak / memory.total:.0%} of the memory is taken; lower --batch-size, or split it "
        "by --accumulation-steps 2"
    ]


def nearest_existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def check_disk(cost: TrainingCost, run_dir: Path) -> None:
    """Raises `ResourceError` if the checkpoints of a run do not fit the disk."""
    required = _NUM_CHECKPOINTS * cost.checkpoint_bytes
    if cost.free_disk_bytes < required:
        raise ResourceError(
            f"the checkpoints of {run_dir} take {required / 1e6:,.0f} MB and "
            f"{cost.free_disk_bytes / 1e6:,.0f} MB are free; make room, or choose another --out"
        )
