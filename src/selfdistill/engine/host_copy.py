"""Numbers that a device sends to the host while it goes on computing."""

import torch
from torch import Tensor


class HostCopy:
    """A small tensor on its way to the host.

    Args:
        tensor: on any device; its copy is asked for at once.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self.copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self.copy.copy_(tensor, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()
        else:
            self.copy = tensor.clone()

    def read(self) -> float:
        """The number, once what was asked of the device before the copy is done.

        What was asked of it since then is not waited for.
        """
        if self.event:
            self.event.synchronize()
        return float(self.copy)
