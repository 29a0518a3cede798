"""Methods whose networks teach one another."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core import STUDENT, Method, Task
from ..taps import Taps


class OnlineMethod(Method):
    """A student and its peers, which all learn.

    Attributes:
        student: the network that is kept, with taps where the method reads features.
        peers: the others.
    """

    kind = "online"
    student: nn.Module
    peers: nn.ModuleList
    task: Task

    def predictors(self) -> dict[str, nn.Module]:
        """`peer1`, `peer2`, … and `student`."""
        peers = {f"peer{k}": _bare(peer) for k, peer in enumerate(self.peers, 1)}
        return {**peers, STUDENT: _bare(self.student)}


def term_prefix(number: int) -> str:
    """The start of the names of a network's terms; the student, number 0, has none."""
    return f"peer{number}/" if number else ""


def _bare(network: nn.Module) -> nn.Module:
    return network.network if isinstance(network, Taps) else network


def mean_soft_loss(
    task: Task, output: Any, others: Sequence[Any], temperature: float, mask: Tensor | None
) -> Tensor:
    """The mean of the soft losses of an output towards those of the other networks."""
    losses = [task.soft_loss(output, z.detach(), temperature, mask=mask) for z in others]
    return torch.stack(losses).mean()
