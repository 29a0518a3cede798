"""What a network costs on this machine: seconds and bytes."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..modules.detector_output import DetectorOutput

WARM_UP = 3
FEWEST, MOST = 5, 50


def median_latencies(
    networks: Mapping[str, nn.Module],
    example: Tensor,
    batch: int,
    *,
    device: torch.device | str = "cpu",
    seconds: float = 10.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of a forward pass of each network, as it is and without `torch.compile`.

    Of a detector that is all the way to its boxes, those that say the same dropped.

    Each round runs every network once, so that whatever else the machine does falls on all of them.
    There are 3 rounds to warm up, then 5 to 50: as many as fit the time.

    Args:
        networks: moved to the device, into evaluation mode.
        example: an input, (B, C, H, W), to take the shape from; its values are drawn anew, since
            zeros are faster on some processors.
        batch: images a pass.
        device: where to run.
        seconds: for all rounds together.
        clock: what tells the time, in seconds.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, *example.shape[1:], generator=generator).to(device)
    ready = {name: network.to(device).eval() for name, network in networks.items()}
    size = (images.shape[-2], images.shape[-1])
    times: dict[str, list[float]] = {name: [] for name in ready}
    with torch.inference_mode():
        began = clock()
        for turn in range(WARM_UP + MOST):
            for name, network in ready.items():
                start = clock()
                out = network(images)
                if isinstance(out, DetectorOutput):
                    out.detections(size)
                _wait(images.device)
                times[name].append(clock() - start)
            if turn == WARM_UP - 1:
                began = clock()
            if turn >= WARM_UP + FEWEST - 1 and clock() - began > seconds:
                break
    return {name: statistics.median(found[WARM_UP:]) for name, found in times.items()}


def _wait(device: torch.device) -> None:
    """Until an accelerator has done what it was asked to; a CPU has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Inside, torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def safetensors_size(network: nn.Module) -> int:
    """Bytes of a safetensors file of the network's weights and buffers, shared ones once."""
    shared = {id(t): (name, t) for name, t in network.state_dict(keep_vars=True).items()}
    form = torch.contiguous_format
    return len(save({n: t.detach().cpu().clone(memory_format=form) for n, t in shared.values()}))
