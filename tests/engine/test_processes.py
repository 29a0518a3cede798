"""What several processes do together, with stand-ins for the other ones."""

from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn

from selfdistill.core import Frozen, ResourceError
from selfdistill.engine.processes import (
    average_statistics,
    gather_rows,
    lost_processes_reported,
    process_max,
    process_mean,
)

TWO = SimpleNamespace(world_size=2)
ONE = SimpleNamespace(world_size=1)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] Connection closed by peer [127.0.0.1]:2"),
        RuntimeError("Read error [127.0.0.1]:3: Connection reset by peer"),
        RuntimeError("NCCL communicator was aborted"),
        distributed.DistNetworkError("the server did not answer"),
        distributed.DistBackendError("remote process exited"),
    ],
)
def test_a_lost_process_is_named(error):
    with pytest.raises(ResourceError, match="another process"), lost_processes_reported(TWO):
        raise error
    with pytest.raises(RuntimeError), lost_processes_reported(ONE):
        raise error


def test_other_faults_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shape"), lost_processes_reported(TWO):
        raise RuntimeError("shape mismatch")


@pytest.mark.parametrize("rank", [0, 1])
def test_rows_of_all_processes_are_in_order_whatever_their_numbers(rank, monkeypatch):
    shares = torch.arange(10.0).view(5, 2).split([2, 3])

    class Both:
        """Two processes, seen from one of them."""

        world_size, device = 2, "cpu"

    def all_gather(parts, tensor):
        sent = [torch.tensor([2]), torch.tensor([3])]
        if tensor.dim() > 1:
            sent = [torch.cat([shares[0], torch.full((1, 2), -1.0)]), shares[1]]
        assert torch.equal(tensor[: len(shares[rank])], sent[rank][: len(shares[rank])])
        for part, tensor in zip(parts, sent, strict=True):
            part.copy_(tensor)

    monkeypatch.setattr(distributed, "all_gather", all_gather)
    assert torch.equal(gather_rows(Both(), shares[rank]), torch.cat(shares))


def test_statistics_are_averaged_but_for_a_given_networks():
    class Both:
        """Two processes, of which the other one has twice the numbers."""

        world_size, calls = 2, 0

        def all_reduce(self, tensor, reduce_op):
            self.calls += 1
            assert reduce_op == "mean"
            return (tensor + 2 * tensor) / 2

    method = nn.Module()
    method.student, method.remembered = nn.BatchNorm2d(3), Frozen(nn.BatchNorm1d(2), saved=True)
    method.teacher = Frozen(nn.BatchNorm2d(3))
    for i, buffer in enumerate(method.buffers()):
        buffer.copy_(torch.arange(buffer.numel()).view_as(buffer) + i)
    before = {name: buffer.clone() for name, buffer in method.named_buffers()}
    average = {"student.running_mean": torch.tensor([2.0, 4.0, 6.0])}
    both = Both()
    average_statistics(both, method, dict(method.named_buffers()), average)
    for name, buffer in method.named_buffers():
        changes = not name.startswith("teacher") and "running" in name
        assert torch.equal(buffer, 1.5 * before[name] if changes else before[name]), name
    assert average["student.running_mean"].tolist() == [3.0, 6.0, 9.0]
    assert both.calls == 1


def test_one_process_agrees_with_itself():
    assert process_max(ONE, 15) == 15
    assert process_mean(ONE, {"a": 1.5}) == {"a": 1.5}
