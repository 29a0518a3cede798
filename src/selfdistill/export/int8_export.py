"""A network in int8 beside its float32 file: quantized, run, timed, and refused if it is worse."""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..core import ConfigError, Task
from ..core.machine import describe_machine
from ..costs.latency import interleaved_times, torch_threads
from ..data import ImageData, ImageSet
from ..data.image_set import spaced_indices
from ..records import split_name
from ..tasks.metric_names import shown_metric
from .int8_options import AUTO, Int8Options
from .onnx_export import onnx_runner, onnx_session
from .onnx_int8 import Int8Quantizer
from .verify import ExportVerification, file_score, verification_batch_size

MAX_CALIBRATION_IMAGES = 256
_MAX_BATCH_SIZE = 32  # of calibration, which keeps the features of a batch, and to be proposed
_MAX_ROUNDS, _SECONDS = 300, 10.0  # of small networks many, whose times are short
_NUM_NAMED = 3  # layers that a refusal names


class Int8Comparison(NamedTuple):
    """A file in int8 beside the one in float32 that it was made of, both run by onnxruntime.

    Attributes:
        split, images: what both were scored on, "test" or "val", and how many images.
        metric: the task's primary metric.
        score, float_score: in it, of int8 and of float32.
        seconds, float_seconds: median of a forward pass, timed in turns.
        ratio: median of int8's time divided by float32's in the same turn.
        batch_size: images of a timed pass.
        machine: processor and threads of the timing.
        size, float_size: of the files in bytes.
        layers: how many there are.
        float_layers: names of those that stayed in float32.
        calibration_images: validation images that the ranges of features are from.
    """

    split: str
    images: int
    metric: str
    score: float
    float_score: float
    seconds: float
    float_seconds: float
    ratio: float
    batch_size: int
    machine: str
    size: int
    float_size: int
    layers: int
    float_layers: list[str]
    calibration_images: int

    @property
    def loss(self) -> float:
        """How much lower the score of int8 is."""
        return self.float_score - self.score

    @property
    def summary(self) -> str:
        """Both scores and times, a clause."""
        return (
            f"int8 reaches {self.score:.2%} {shown_metric(self.metric)} on the {self.images:,} "
            f"{split_name(self.split)} images, where float32 reaches {self.float_score:.2%}, and "
            f"takes {self.ratio:.2f} of its time "
            f"({1000 * self.seconds:.3g} ms and {1000 * self.float_seconds:.3g} ms for "
            f"{_count(self.batch_size, 'image')}, {self.machine})"
        )


def check_calibratable(data: ImageData) -> None:
    """Raise `ConfigError` if there are no images to calibrate by."""
    if not data.val:
        raise ConfigError(
            "int8 is calibrated by validation images, and the run held none out; train with "
            "--val-fraction 0.1, or take --format onnx"
        )


def write_int8(
    float_file: Path,
    file: Path,
    verification: ExportVerification,
    data: ImageData,
    task: Task,
    options: Int8Options,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Int8Comparison:
    """Quantize a file, and compare the two on all images that the first was verified by.

    Args:
        float_file: as `write_onnx` wrote it.
        file: to write.
        verification: of the float32 file.
        data: at the image size of the file, with validation images.
        task: of the data.
        options: what is allowed.
        ranges: see `Int8Quantizer`.

    Raises:
        ConfigError: int8 is slower or loses more than is allowed, there are fewer layers than are
            to stay in float32, or the network cannot be quantized.
    """
    assert data.val is not None
    assert verification.score is not None
    batches = calibration_batches(data.val, data)
    quantizer = Int8Quantizer(float_file, batches, ranges)
    chosen: list[int] = []
    errors: list[float] | None = None
    if options.float_layers == AUTO:
        chosen, errors = _automatic_layers(quantizer, float_file, file, data, task, options)
    elif count := int(options.float_layers):
        _check_count(count, len(quantizer.layers))
        errors = quantizer.layer_errors()
        chosen = _worst(errors, count)
    quantizer.write(file, chosen)
    held_out = data.test or data.val
    seconds, float_seconds, ratio, machine = _times(file, float_file, batches, options)
    comparison = Int8Comparison(
        verification.split,
        verification.images,
        task.primary_metric,
        file_score(onnx_runner(file), held_out, data, task),
        verification.score,
        seconds,
        float_seconds,
        ratio,
        options.batch_size,
        machine,
        file.stat().st_size,
        float_file.stat().st_size,
        len(quantizer.layers),
        [quantizer.layers[k].name for k in sorted(chosen)],
        sum(map(len, batches)),
    )
    _require_score(comparison, quantizer, chosen, errors, options.max_loss)
    _require_speed(comparison)
    return comparison


def calibration_batches(images: ImageSet, data: ImageData) -> list[np.ndarray]:
    """Some of the images, spread evenly, as an exported file takes them: float32 in 0 … 1."""
    index = spaced_indices(len(images), MAX_CALIBRATION_IMAGES)
    size = min(_MAX_BATCH_SIZE, verification_batch_size(data))
    return [(images.fetch(rows).float() / 255).numpy() for rows in index.split(size)]


def _automatic_layers(
    quantizer: Int8Quantizer,
    float_file: Path,
    file: Path,
    data: ImageData,
    task: Task,
    options: Int8Options,
) -> tuple[list[int], list[float] | None]:
    """The fewest layers to leave in float32 that keep the loss on the validation images."""
    assert data.val is not None
    lowest = file_score(onnx_runner(float_file), data.val, data, task) - options.max_loss - 1e-9
    chosen: list[int] = []
    errors: list[float] | None = None
    while True:
        quantizer.write(file, chosen)
        count, most = max(1, 2 * len(chosen)), len(quantizer.layers) - 1
        if file_score(onnx_runner(file), data.val, data, task) >= lowest or len(chosen) == most:
            return chosen, errors
        errors = errors or quantizer.layer_errors()
        chosen = _worst(errors, min(count, most))


def _check_count(count: int, layers: int) -> None:
    if count >= layers:
        raise ConfigError(
            f"{_count(count, 'layer')} would stay in float32, and the network has {layers}; "
            + (f"give --float-layers at most {layers - 1}, or " if layers > 1 else "")
            + "take --format onnx"
        )


def _worst(errors: Sequence[float], count: int) -> list[int]:
    """Indices of the layers with the largest errors."""
    return sorted(range(len(errors)), key=lambda k: -errors[k])[:count]


def _times(
    file: Path, float_file: Path, batches: Sequence[np.ndarray], options: Int8Options
) -> tuple[float, float, float, str]:
    """Median seconds of both, the median of their ratio, and the machine."""
    threads = options.num_threads or torch.get_num_threads()
    images = np.resize(np.concatenate(batches), (options.batch_size, *batches[0].shape[1:]))
    sessions = {path: onnx_session(path, threads) for path in (file, float_file)}
    calls = {
        path.name: partial(session.run, None, {session.get_inputs()[0].name: images})
        for path, session in sessions.items()
    }
    with torch_threads(threads):
        machine = describe_machine()
    own, full = interleaved_times(calls, seconds=_SECONDS, max_rounds=_MAX_ROUNDS).values()
    ratio = statistics.median(a / b for a, b in zip(own, full, strict=True))
    return statistics.median(own), statistics.median(full), ratio, machine


def _require_score(
    comparison: Int8Comparison,
    quantizer: Int8Quantizer,
    chosen: Sequence[int],
    errors: list[float] | None,
    max_loss: float,
) -> None:
    if comparison.loss <= max_loss + 1e-9:
        return
    errors = errors or quantizer.layer_errors()
    order = [k for k in sorted(range(len(errors)), key=lambda k: -errors[k]) if k not in chosen]
    names = [f"{quantizer.layers[k].name} ({errors[k]:.1%})" for k in order[:_NUM_NAMED]]
    more = max(1, 2 * len(chosen))
    remedy = f"--float-layers {more if chosen else AUTO} leaves such layers in float32"
    if more >= len(quantizer.layers):
        remedy = "take --format onnx"
    raise ConfigError(
        f"{comparison.summary}; --max-loss allows {100 * max_loss:g} points, and nothing was "
        f"written. The outputs move most by {', '.join(names)}; {remedy}"
    )


def _require_speed(comparison: Int8Comparison) -> None:
    if comparison.ratio > 1:
        larger = f", or, if more images come at once, time it by --batch-size {_MAX_BATCH_SIZE}"
        raise ConfigError(
            f"{comparison.summary}; a file that is slower is not kept. Take --format onnx"
            + larger * (comparison.batch_size < _MAX_BATCH_SIZE)
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"
