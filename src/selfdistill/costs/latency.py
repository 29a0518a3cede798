"""Latency and file size of a network."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..modules.detector_output import DetectorOutput

WARMUP_ROUNDS = 3
MIN_ROUNDS, MAX_ROUNDS = 5, 50


def median_latencies(
    networks: Mapping[str, nn.Module],
    example: Tensor,
    batch_size: int,
    *,
    device: torch.device | str = "cpu",
    seconds: float = 10.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of a forward pass of each network, without `torch.compile`.

    A detector's pass includes decoding and non-maximum suppression.

    Each round runs every network once, so that interference of other processes affects all of them.
    After 3 warm-up rounds there are 5 to 50 rounds, as many as fit into `seconds`.

    Args:
        networks: moved to the device, in evaluation mode.
        example: an input, (B, C, H, W), that sets the shape; its values are drawn anew, since zeros
            are faster on some processors.
        batch_size: images per pass.
        device: to run on.
        seconds: for all measured rounds together.
        clock: returns the current time in seconds.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, *example.shape[1:], generator=generator).to(device)
    size = (images.shape[-2], images.shape[-1])

    def forward_pass(network: nn.Module) -> None:
        outputs = network(images)
        if isinstance(outputs, DetectorOutput):
            outputs.detections(size)
        _synchronize(images.device)

    passes = {n: partial(forward_pass, net.to(device).eval()) for n, net in networks.items()}
    with torch.inference_mode():
        times = interleaved_times(passes, seconds=seconds, clock=clock)
    return {name: statistics.median(rounds) for name, rounds in times.items()}


def interleaved_times(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 10.0,
    max_rounds: int = MAX_ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call in every measured round, in which all of them run once.

    After 3 warm-up rounds there are 5 to `max_rounds` rounds, as many as fit into `seconds`.

    Args:
        calls: what is timed, by name.
        seconds: for all measured rounds together.
        max_rounds: at most.
        clock: returns the current time in seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARMUP_ROUNDS + max_rounds):
        if turn == WARMUP_ROUNDS:
            warm = clock()
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append(clock() - start)
        if turn >= WARMUP_ROUNDS + MIN_ROUNDS - 1 and clock() - warm > seconds:
            break
    return {name: rounds[WARMUP_ROUNDS:] for name, rounds in times.items()}


def _synchronize(device: torch.device) -> None:
    """Wait for an accelerator to finish its queue; a CPU has none."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Context in which torch computes with `count` threads."""
    previous = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def safetensors_size(network: nn.Module) -> int:
    """Bytes of a safetensors file of the network's weights and buffers, shared ones once."""
    unique = {id(t): (name, t) for name, t in network.state_dict(keep_vars=True).items()}
    layout = torch.contiguous_format
    return len(save({n: t.detach().cpu().clone(memory_format=layout) for n, t in unique.values()}))
