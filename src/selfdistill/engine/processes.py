"""What the processes of one run do together: means, statistics, and ending in order."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core import ResourceError, trained_state
from ..core.fake_quantization import RANGE, fake_quantized
from .host_copy import HostCopy

_LOST = ("closed by peer", "reset by peer", "connection refused", "broken pipe", "gloo", "nccl")


def process_mean(fabric: Fabric, values: Mapping[str, float]) -> dict[str, float]:
    """The mean of each value over all processes."""
    if fabric.world_size == 1 or not values:
        return dict(values)
    tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=fabric.device)
    mean = cast(Tensor, fabric.all_reduce(tensor, reduce_op="mean"))
    return dict(zip(values, mean.tolist(), strict=True))


def process_max(fabric: Fabric, value: int) -> int:
    """The largest value of all processes."""
    if fabric.world_size == 1:
        return value
    tensor = torch.tensor(value, device=fabric.device)
    return int(cast(Tensor, fabric.all_reduce(tensor, reduce_op="max")))


class ProcessMax:
    """The largest value of all processes, which all of them are told at the same call.

    Args:
        fabric: whose processes agree.
        deferred: whether it is told at the call after, so that no host waits for its device.
    """

    def __init__(self, fabric: Fabric, *, deferred: bool) -> None:
        self.fabric, self.deferred = fabric, deferred
        self.sent: HostCopy | None = None

    def __call__(self, value: int) -> int:
        """The largest value, if deferred of the call before; at the first of these it is 0."""
        if not self.deferred or self.fabric.world_size == 1:
            return process_max(self.fabric, value)
        largest = torch.full((), value, device=self.fabric.device)
        # not Fabric's, which lets all hosts wait for each other first
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
        before, self.sent = self.sent, HostCopy(largest)
        return int(before.read()) if before else 0


def gather_rows(fabric: Fabric, rows: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks, (N, …), on the CPU.

    Processes may have different numbers of rows, and none.
    """
    if fabric.world_size == 1:
        return rows.cpu()
    own = torch.tensor([len(rows)], device=fabric.device)
    counts = torch.cat(_gather(fabric, own)).tolist()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = _gather(fabric, padded.to(fabric.device))
    return torch.cat([part[:count].cpu() for part, count in zip(gathered, counts, strict=True)])


def _gather(fabric: Fabric, tensor: Tensor) -> list[Tensor]:
    """A tensor of one shape of each process, without gradients, which Fabric's would have."""
    parts = [torch.empty_like(tensor) for _ in range(fabric.world_size)]
    distributed.all_gather(parts, tensor)
    return parts


def average_statistics(fabric: Fabric, method: nn.Module, *states: Mapping[str, Tensor]) -> None:
    """Give every process the mean of all processes' running statistics, in each of the states.

    These are BatchNorm's, and the ranges of layers in simulated int8, but for those of a network
    that was given and stays as it is.
    """
    if fabric.world_size == 1:
        return
    norms = [n for n, m in method.named_modules() if isinstance(m, _BatchNorm)]
    names = [f"{n}.running_{stat}" for n in norms for stat in ("mean", "var")]
    names += [f"{n}.{RANGE}" for n in fake_quantized(method)]
    trained = trained_state(method).keys()
    statistics = [s[name] for name in names for s in states if name in s and name in trained]
    if statistics:
        flat = torch.cat([statistic.flatten() for statistic in statistics])
        mean = cast(Tensor, fabric.all_reduce(flat, reduce_op="mean"))
        parts = mean.split([statistic.numel() for statistic in statistics])
        for statistic, part in zip(statistics, parts, strict=True):
            statistic.copy_(part.view_as(statistic))


@contextmanager
def lost_processes_reported(fabric: Fabric) -> Iterator[None]:
    """Context in which the end of another process is an error that says so.

    Raises:
        ResourceError: the connection to another process of the run is lost.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        lost = isinstance(error, distributed.DistError) or any(part in text for part in _LOST)
        if fabric.world_size == 1 or not lost:
            raise
        raise ResourceError(
            "another process of this run ended, so this one ends, too; the other one's message "
            "says why, and train --resume goes on from the last checkpoint"
        ) from error
