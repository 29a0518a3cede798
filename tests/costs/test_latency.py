"""Latencies by a clock that is made up, and sizes by the file itself."""

import itertools

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from selfdistill.costs.latency import (
    MAX_ROUNDS,
    MIN_ROUNDS,
    WARMUP_ROUNDS,
    median_latencies,
    safetensors_size,
    torch_threads,
)

EXAMPLE = torch.zeros(2, 3, 4, 4)


class Clock:
    """Time that passes only while a network works, and a little at each tick."""

    def __init__(self, tick: float = 0.0) -> None:
        self.time, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.time += self.tick
        return self.time


class Worker(nn.Module):
    """Takes the times that it is told to, in turn."""

    def __init__(self, clock, *times) -> None:
        super().__init__()
        self.clock, self.times = clock, itertools.cycle(times)
        self.calls, self.modes = [], set()

    def forward(self, x):
        self.calls.append((tuple(x.shape), self.clock.time))
        self.modes.add((self.training, torch.is_inference_mode_enabled()))
        self.clock.time += next(self.times)
        return x


def test_medians_of_interleaved_rounds():
    clock = Clock()
    slow, fast = Worker(clock, 3, 5, 100, 4, 4, 1), Worker(clock, 1)
    latencies = median_latencies({"slow": slow, "fast": fast}, EXAMPLE, 7, seconds=1e9, clock=clock)
    assert latencies == {"slow": 4, "fast": 1}
    assert len(slow.calls) == len(fast.calls) == WARMUP_ROUNDS + MAX_ROUNDS
    assert {shape for shape, _ in slow.calls} == {(7, 3, 4, 4)}
    assert all(a < b for (_, a), (_, b) in zip(slow.calls, fast.calls, strict=True))
    assert slow.modes == {(False, True)}


def test_warm_up_does_not_count():
    clock = Clock()
    network = Worker(clock, *[50.0] * WARMUP_ROUNDS, *[2.0] * 1000)
    assert median_latencies({"a": network}, EXAMPLE, 1, clock=clock)["a"] == 2


def test_the_time_ends_the_rounds_but_not_before_there_are_some():
    for seconds, want in ((0.0, MIN_ROUNDS), (20.5, 21), (1e9, MAX_ROUNDS)):
        clock = Clock()
        network = Worker(clock, 1.0)
        median_latencies({"a": network}, EXAMPLE, 1, seconds=seconds, clock=clock)
        assert len(network.calls) == WARMUP_ROUNDS + want


def test_a_real_network_takes_some_time(tiny_net):
    latencies = median_latencies({"net": tiny_net}, torch.zeros(1, 3, 16, 16), 2, seconds=0.0)
    assert latencies["net"] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_synchronized(tiny_net):
    latencies = median_latencies(
        {"net": tiny_net}, torch.zeros(1, 3, 16, 16), 2, device="cuda", seconds=0.0
    )
    assert latencies["net"] > 0


def test_threads_come_back():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_size_is_that_of_the_file(tiny_net, tmp_path):
    save_file(tiny_net.state_dict(), tmp_path / "net.safetensors")
    assert safetensors_size(tiny_net) == (tmp_path / "net.safetensors").stat().st_size


def test_what_is_shared_is_saved_once():
    first, second = nn.Linear(100, 100), nn.Linear(100, 100)
    apart = safetensors_size(nn.ModuleList([first, second]))
    second.weight = first.weight
    assert apart - safetensors_size(nn.ModuleList([first, second])) >= 4 * 100 * 100


def test_any_memory_format(tiny_net):
    plain = safetensors_size(tiny_net)
    assert safetensors_size(tiny_net.to(memory_format=torch.channels_last)) == plain
