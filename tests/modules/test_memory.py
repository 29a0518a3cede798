"""The memory bank: scores, updates by hand, and one content in all processes."""

import math
import multiprocessing

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from selfdistill.modules.memory import MemoryBank, all_gather

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pytest", "selfdistill.runs.train"])


def bank(samples=20, width=8, momentum=0.5) -> MemoryBank:
    torch.manual_seed(0)
    return MemoryBank(samples, width, momentum)


def embeddings(count: int, width: int = 8, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator))


def test_starts_uniform_with_rows_of_length_one_on_average():
    rows = bank(2000, 128).rows
    assert rows.abs().max() <= (128 / 3) ** -0.5
    assert rows.square().sum(1).mean().item() == pytest.approx(1, abs=0.01)
    assert rows.std().item() == pytest.approx(128**-0.5, rel=0.01)


@pytest.mark.parametrize("many", [2, 30])  # the rows of each, or all products first
def test_scores_are_dot_products(many):
    memory, v = bank(), embeddings(5).requires_grad_()
    index = torch.randint(20, (5, many), generator=torch.Generator().manual_seed(2))
    scores = memory(v, index)
    rows, vectors = memory.rows.double().numpy(), v.detach().double().numpy()
    for b in range(5):
        for m in range(many):
            want = rows[index[b, m]] @ vectors[b]
            assert scores[b, m].item() == pytest.approx(want, abs=1e-6)
    scores.sum().backward()
    torch.testing.assert_close(v.grad, memory.rows[index].sum(1))


@pytest.mark.parametrize("many", [2, 30])
def test_scores_stay_fp32_under_autocast(many):
    memory, v = bank(), embeddings(5)
    index = torch.arange(many).remainder(20).expand(5, -1)
    want = memory(v, index)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(memory(v, index), want)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_update_moves_the_named_rows_alone(momentum):
    memory, new = bank(momentum=momentum), embeddings(3)
    before, index = memory.rows.clone(), torch.tensor([4, 17, 0])
    memory.update(index, new)
    for i in range(20):
        if i in index:
            want = momentum * before[i] + (1 - momentum) * new[index.tolist().index(i)]
            torch.testing.assert_close(memory.rows[i], want / want.norm())
        else:
            assert torch.equal(memory.rows[i], before[i])
    torch.testing.assert_close(memory.rows[index].norm(dim=1), torch.ones(3))


def test_an_image_seen_twice_moves_once_towards_the_first():
    memory, other, new = bank(), bank(), embeddings(4)
    memory.update(torch.tensor([3, 5, 3, 3]), new)
    other.update(torch.tensor([3, 5]), new[:2])
    assert torch.equal(memory.rows, other.rows)


def test_rows_are_state_and_no_parameters():
    memory = bank()
    assert list(memory.state_dict()) == ["rows"]
    assert list(memory.parameters()) == []


def test_one_process_gathers_its_own():
    x = torch.arange(3)
    assert all_gather(x) is x


# What the two processes see: image 5 is in both shares, image 2 twice in one.
SHARES = (torch.tensor([5, 2, 2, 9]), torch.tensor([0, 5, 11, 19]))


def contrast_in(rank: int):
    """Two steps of the method that uses banks, each process with its own images."""
    from selfdistill.core import METHODS, Batch, Progress
    from selfdistill.taps import Taps, Teacher
    from selfdistill.tasks import Classification

    torch.manual_seed(0)
    task = Classification("ab", torch.zeros(2, 3, 4, 4))
    networks = [
        torch.nn.Sequential(
            torch.nn.Conv2d(3, c, 1), torch.nn.Flatten(), torch.nn.Linear(16 * c, 2)
        )
        for c in (4, 6)
    ]
    student, teacher = (Taps(network, ["0"], example=task.example) for network in networks)
    method = METHODS["crd"](
        student, Teacher(teacher), task, torch.arange(20) % 2, embedding_width=8
    )
    for step in range(2):
        progress = Progress(*map(torch.tensor, (0, 0, step, 10)))
        for part in range(2):  # two passes make a step
            generator = torch.Generator().manual_seed(100 * rank + 10 * step + part)
            images, index = torch.randn(4, 3, 4, 4, generator=generator), SHARES[rank] - part
            method(Batch(images, index % 2, index % 20), progress)
        method.after_step(progress)
    return method.memory_student.rows, method.memory_teacher.rows, method.constants


def work(rank: int, meeting: str, answers) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    memory = bank()
    memory.update(SHARES[rank], embeddings(4, seed=rank))
    tensors = (memory.rows, *contrast_in(rank))
    answers.put((rank, [tensor.tolist() for tensor in tensors]))
    dist.destroy_process_group()


def test_processes_hold_the_same_memory(tmp_path):
    answers = SERVER.Queue()
    processes = [
        SERVER.Process(target=work, args=(rank, str(tmp_path / "meeting"), answers))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    contents = dict(answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert contents[0] == contents[1]  # to the last bit, and so are rows that both have seen
    rows, *_, constants = contents[0]
    alone = bank()
    alone.update(torch.cat(SHARES), torch.cat([embeddings(4, seed=rank) for rank in (0, 1)]))
    torch.testing.assert_close(torch.tensor(rows), alone.rows)
    assert all(0 < z < math.inf for z in constants)
