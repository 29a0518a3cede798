"""What all tests share: one thread, no stray warnings, a tiny network and its batch."""

import os
import signal
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

import selfdistill.methods  # noqa: F401  registers them
from selfdistill.core import Batch, Progress
from selfdistill.tasks import Classification

torch.set_num_threads(1)
# of numpy's libraries in the processes of pytest-xdist, and of all that a test starts
os.environ.setdefault("OMP_NUM_THREADS", "1")
# bf16, which a recipe takes by itself where the processor has it, would round what tests compare
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
os.environ["COLUMNS"] = "110"  # of the console, which is made once; pytest-xdist says 80

NOISE = [
    # torch's own: ATen calls what it deprecates, gloo is chatty, ONNX and inductor import slowly
    "ignore:.*TypedStorage is deprecated.*:UserWarning",
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:.*torch.jit.*is deprecated.*:DeprecationWarning",
    "ignore:.*multi-threaded, use of fork.*:DeprecationWarning",
    # torch 2.11, whose tracer makes an instance of each autograd function
    "ignore:.*autograd.function.Function.*should not be instantiated.*:DeprecationWarning",
    # torch on the very first 3.13
    "ignore:Guards may run slower on Python 3.13.0.*:RuntimeWarning",
    # Lightning on how it would like to be started; by its text, since its class takes as long to
    # import as all else that a test process needs
    "ignore:The `srun` command is available.*:UserWarning",
]


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="run the slow half, too")
    parser.addoption("--kills", type=int, default=50, help="random kills in the slow half")


def pytest_configure(config):
    for line in ["error", *NOISE]:
        config.addinivalue_line("filterwarnings", line)


def pytest_collection_modifyitems(config, items):
    lines = (Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").splitlines()
    slow_names = tuple(f"tests/{line}" for line in lines if not line.startswith("#"))
    for item in items:
        if item.nodeid.startswith(slow_names):
            item.add_marker("slow")
    if not config.getoption("--runslow"):
        slow = [item for item in items if "slow" in item.keywords]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if "slow" not in item.keywords]


def conv_bn_relu(channels: int, width: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


class Hanging(BaseException):
    """No Exception, nor TimeoutError, which is an OSError: nothing is to handle it."""


@pytest.fixture(scope="session")
def time_limit():
    """A context manager that ends what hangs, such as the reading of a named pipe."""

    def stop(number, frame):
        raise Hanging

    @contextmanager
    def limited(seconds: int):
        before = signal.signal(signal.SIGALRM, stop)
        signal.alarm(seconds)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    return limited


@pytest.fixture
def tiny_net() -> nn.Module:
    """Four stages, 3×16×16 to five classes."""
    torch.manual_seed(0)
    stages = [(3, 8, 1), (8, 8, 2), (8, 12, 2), (12, 16, 2)]
    parts = {f"stage{i}": conv_bn_relu(*s) for i, s in enumerate(stages, 1)}
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(16, 5)}
    return nn.Sequential(OrderedDict(parts))


@pytest.fixture
def tiny_task() -> Classification:
    return Classification("abcde", torch.zeros(2, 3, 16, 16))


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(8, 3, 16, 16, generator=generator)
    return Batch(inputs, torch.arange(8) % 5, torch.arange(8))


@pytest.fixture
def progress() -> Progress:
    return Progress(torch.tensor(0), torch.tensor(0), torch.tensor(0), torch.tensor(1000))
