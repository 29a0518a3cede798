"""Every method in two processes: equal gradients, equal weights."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
from contract_cases import CASES, Case, moment, usual
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

# Imports everything once; a process is forked from it in no time.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pytest", "selfdistill.runs.train"])


def spread(values: list[Tensor]) -> float:
    """The largest difference of any of these between the processes."""
    flat = torch.cat([v.detach().flatten() for v in values])
    mine, its = flat.clone(), flat.clone()
    dist.all_reduce(mine, dist.ReduceOp.MAX)
    dist.all_reduce(its, dist.ReduceOp.MIN)
    return float((mine - its).max())


def train_shared(case: Case, rank: int) -> str:
    """Three steps, each process on its own samples; what is wrong, or nothing."""
    method = case.method()
    # as the trainer sets it, for methods whose training has several parts
    wrapped = DistributedDataParallel(method, broadcast_buffers=False, find_unused_parameters=True)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9)
    for i in range(3):
        optimizer.zero_grad()
        step = wrapped(case.batch(seed=10 * i + rank), moment(i))
        step.total.backward()
        grads = [p.grad for p in method.parameters() if p.grad is not None]
        if (apart := spread(grads)) > 0:
            return f"step {i}: gradients differ by {apart}"
        if spread([step.total]) == 0:
            return f"step {i}: both processes saw the same samples"
        optimizer.step()
        method.after_step(moment(i))
    apart = spread([p for p in method.parameters() if p.requires_grad])
    return f"weights differ by {apart}" if apart else ""


def work(rank: int, cases: list[Case], meeting: str, answers) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    for case in cases:
        try:
            fault = train_shared(case, rank)
        except RuntimeError as error:
            fault = str(error).splitlines()[0]
        answers.put((rank, str(case), fault))
    dist.destroy_process_group()


def check(cases: list[Case], meeting) -> None:
    answers = SERVER.Queue()
    processes = [
        SERVER.Process(target=work, args=(rank, cases, str(meeting), answers)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    said = [answers.get(timeout=120) for _ in range(2 * len(cases))]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [answer for answer in said if answer[2]] == []


def test_processes_agree(tmp_path):
    check([case for case in CASES if usual(case)], tmp_path / "meeting")


@pytest.mark.slow
def test_processes_agree_on_every_variant(tmp_path):
    check(CASES, tmp_path / "meeting")
