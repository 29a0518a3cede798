"""Tiny runs of the engine, and runs in processes of their own that can be killed."""

import inspect
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import Fault, arm
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from selfdistill.core import Batch, Method, Needs, SelfdistillError, trained_state
from selfdistill.data import EvalLoader, InMemoryImages, Loader
from selfdistill.engine import checkpoint
from selfdistill.engine.callback import Callback
from selfdistill.engine.run_directory import RunDirectory
from selfdistill.engine.settings import TrainingSettings
from selfdistill.engine.trainer import Trainer
from selfdistill.recipe.build_method import build_method
from selfdistill.recipe.options import method_classes
from selfdistill.signals import Interrupted
from selfdistill.tasks import Classification

CLASSES, SIDE = "abc", 8
STEPS = 3  # an epoch of `images()` in batches of 8


def images(count: int = 28) -> InMemoryImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return InMemoryImages(pixels, torch.arange(count) % len(CLASSES))


def network(
    norm: str = "batch",
    dropout: float = 0.0,
    *,
    unused: bool = False,
    dense: bool = False,
    width: int = 4,
    classes: int = len(CLASSES),
) -> nn.Module:
    def stage(channels: int, width: int) -> nn.Sequential:
        normed = nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(2, width)
        conv = nn.Conv2d(channels, width, 3, 2, 1, bias=False)
        return nn.Sequential(conv, normed, nn.ReLU(), nn.Dropout(dropout))

    class Net(nn.Sequential):
        cuts = ("0", "1")

    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes)
    head = [nn.Conv2d(2 * width, classes, 1)] if dense else pooled
    net = Net(stage(3, width), stage(width, 2 * width), *head)
    if unused:
        net.register_parameter("unused", nn.Parameter(torch.ones(2)))
    return net


_PLAIN = Needs()


class Slice:
    """Training batches without augmentation, cut into `parts` micro-batches."""

    steps_per_epoch = STEPS

    def __init__(self, parts: int = 1, needs: Needs = _PLAIN) -> None:
        loader = Loader(images(), batch_size=8, seed=0, mean=(0.5,) * 3, std=(0.3,) * 3,
                        crop_padding=1, flip=True, micro_batches=parts, views=needs.views,
                        same_class=needs.same_class)  # fmt: skip
        self.epoch, self.choose = loader.epoch, loader.choose

    def pool(self) -> EvalLoader:
        """All images, for methods that choose among extra ones; here these are their extra ones."""
        return EvalLoader(images(), batch_size=8, mean=(0.5,) * 3, std=(0.3,) * 3)


def task() -> Classification:
    return Classification(CLASSES, torch.zeros(2, 3, SIDE, SIDE))


def parameters(name: str) -> set[str]:
    """What the constructors of a method, or of joined ones, take."""
    return {p for cls in method_classes(name).values() for p in inspect.signature(cls).parameters}


def as_teacher(name: str, net: nn.Module) -> nn.Module:
    """The network, or the method that its students want it to be trained by."""
    trained_by = [cls.teacher_method for cls in method_classes(name).values() if cls.teacher_method]
    return build_method(trained_by[0], net, task()) if trained_by else net


def companions(name: str, make_network: Callable[[], Any] | None = None) -> dict[str, Any]:
    """A teacher and a peer for methods that have them."""
    takes = parameters(name)
    teacher = {}
    if "teacher" in takes:
        teacher = {"teacher": make_network() if make_network else as_teacher(name, network())}
    make_network = make_network or network
    return teacher | ({"peers": [make_network()]} if "peers" in takes else {})


def make(
    out: Path,
    name: str = "ce",
    *,
    options: dict[str, Any] | None = None,
    net: dict[str, Any] | None = None,
    train: Any = None,
    callback: Any = None,
    method: Method | None = None,
    **settings: Any,
) -> Trainer:
    """A run of two epochs of three steps, on a network whose weights are always the same."""
    torch.manual_seed(0)
    usual = {"epochs": 2, "log_every_steps": 2, "lr": 0.05}
    fabric = Fabric(accelerator="cpu", devices=1)
    student = network(**(net or {}))
    labels = images().labels if "train_labels" in parameters(name) else None
    method = method or build_method(
        name, student, task(), chosen=options, train_labels=labels, **companions(name)
    )
    val = EvalLoader(images(10), batch_size=4, mean=(0.5,) * 3, std=(0.3,) * 3)
    directory = RunDirectory(out)
    directory.checkpoints.mkdir(parents=True, exist_ok=True)
    train = train or Slice(needs=method.needs)
    return Trainer(fabric, method, task(), train, val, TrainingSettings(**(usual | settings)),
               directory, callback)  # fmt: skip


class Calls(Callback):
    """A callback that calls back at each step."""

    def __init__(self, hook: Callable[[int], None]) -> None:
        self.hook = hook

    def on_step(self, step: int, total_steps: int) -> None:
        self.hook(step)


def lines(path: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock; every line must be whole."""
    entries = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in e.items() if k != "images_per_second"} for e in entries]


def final(path: Path) -> checkpoint.Checkpoint:
    newest = checkpoint.newest(path / "checkpoints")
    assert newest is not None
    return newest


def assert_same_run(first: Path, second: Path) -> None:
    """Bit for bit: every tensor of the last checkpoint, its state, and every line of metrics."""
    a, b = final(first), final(second)
    assert a.state == b.state
    assert_same_tensors(a, b)
    assert lines(first) == lines(second)


def assert_same_end(first: Path, second: Path, processes: int) -> None:
    """Two runs to the end are one: tensors, state, tables, lines, and no drafts are left."""
    if processes == 1:
        assert_same_run(first, second)
    else:  # a mean over the processes, taken once or twice, differs in the last bit
        a, b = final(first), final(second)
        assert_same_tensors(a, b)
        assert a.state == b.state
        assert lines(first) == nearly(lines(second))
    names = [{p.relative_to(d) for p in d.rglob("*")} for d in (first, second)]
    assert names[0] == names[1]
    for name in ("recipe.toml", "data.json", *(n for n in names[0] if n.suffix == ".csv")):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def nearly(value: Any) -> Any:
    """A value whose numbers are compared as approximate ones."""
    if isinstance(value, dict):
        return {key: nearly(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [nearly(inner) for inner in value]
    return pytest.approx(value, rel=1e-5, abs=1e-7) if isinstance(value, float) else value


def assert_same_tensors(a: checkpoint.Checkpoint, b: checkpoint.Checkpoint) -> None:
    assert a.tensors.keys() == b.tensors.keys()
    for stem, tensors in a.tensors.items():
        assert tensors.keys() == b.tensors[stem].keys()
        for name, value in tensors.items():
            assert torch.equal(value, b.tensors[stem][name]), f"{stem}: {name}"


def flat(steps: Iterator[list[Batch]]) -> list[int]:
    return [i for step in steps for batch in step for i in batch.indices.tolist()]


# Processes of their own. A fork server imports everything once, so that a start takes no time.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["pytest", "selfdistill.runs.train", "selfdistill.reporting.run_page", "faults"]
)


class Acts(Callback):
    """A slow callback; it may send its own process a signal when it hears of an epoch."""

    def __init__(self, each_step: float, signal_at_epoch: int) -> None:
        self.each_step, self.signal_at_epoch = each_step, signal_at_epoch

    def on_step(self, step: int, total_steps: int) -> None:
        time.sleep(self.each_step)

    def on_epoch(self, entry: dict[str, Any]) -> None:
        if entry["epoch"] == self.signal_at_epoch:
            os.kill(os.getpid(), signal.SIGTERM)


def train_here(
    keys: dict[str, Any], env: dict[str, str], acts: tuple[float, int], fault: Fault
) -> None:
    """What a child process does: `selfdistill.train`, ended as the command would end it.

    The trained method's state is left beside the run, one file a process, and the numbers of
    moments at which a fault could have struck.
    """
    from selfdistill.reporting import run_page
    from selfdistill.runs.train import train

    run_page.page = lambda run: run.name  # drawing takes longer than all else
    os.environ.update(env)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    networks_of(keys)
    counts = arm(fault, Path(keys["out"]))
    try:
        run = train(callback=Acts(*acts), **keys)
    except SelfdistillError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except Interrupted as stop:
        sys.exit(128 + stop.number)
    state = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in trained_state(run.method).items()
    }
    rank = next((env[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in env), "0")
    save_file(state, Path(keys["out"]).with_suffix(f".rank{rank}.safetensors"))
    Path(keys["out"]).with_suffix(f".rank{rank}.json").write_text(json.dumps(counts))


def networks_of(keys: dict[str, Any]) -> None:
    """Keywords for networks become networks, in place."""
    keys["model"] = network_of(keys["model"])
    if "teacher" in keys:
        keys["teacher"] = as_teacher(keys["method"], network_of(keys["teacher"]))
    if "peers" in keys:
        keys["peers"] = [network(**peer) for peer in keys["peers"]]


def network_of(keys: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return network(**keys)


def start(
    keys: dict[str, Any],
    *,
    env: dict[str, str] | None = None,
    each_step: float = 0.0,
    signal_at_epoch: int = -1,
    fault: Fault = Fault(),  # noqa: B008  a constant
) -> Any:
    """A training process that runs by itself."""
    acts = (each_step, signal_at_epoch)
    process = SERVER.Process(target=train_here, args=(keys, env or {}, acts, fault))
    process.start()
    return process


def start_two(
    out: Path, keys: dict[str, Any], faults: Sequence[Fault] = (Fault(), Fault()), **acts: Any
) -> list[Any]:
    """Two processes that were started from outside, each told its rank as Lightning tells it."""
    variables = {"WORLD_SIZE": "2", "NODE_RANK": "0"} | rendezvous()
    keys = keys | {"devices": 2, "out": str(out)}
    return [
        start(keys, env=variables | {"LOCAL_RANK": str(rank)}, fault=fault, **acts)
        for rank, fault in enumerate(faults)
    ]


def start_launched(
    out: Path,
    keys: dict[str, Any],
    nodes: int,
    per_node: int,
    launcher: str = "torchrun",
    **acts: Any,
) -> list[Any]:
    """Processes with the variables of a launcher, as if on several machines."""
    shared, keys = rendezvous(), keys | {"out": str(out)}
    ranks = [(node, local) for node in range(nodes) for local in range(per_node)]
    variables = {"torchrun": torchrun_variables, "ray": ray_variables, "srun": srun_variables}
    return [
        start(keys, env=shared | variables[launcher](node, local, nodes, per_node), **acts)
        for node, local in ranks
    ]


def rendezvous() -> dict[str, str]:
    """Address and a free port at which the processes of a run meet."""
    with socket.socket() as port_socket:
        port_socket.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port_socket.getsockname()[1])}


def torchrun_variables(node: int, local: int, nodes: int, per_node: int) -> dict[str, str]:
    numbers = {
        "RANK": node * per_node + local, "LOCAL_RANK": local, "GROUP_RANK": node,
        "WORLD_SIZE": nodes * per_node, "LOCAL_WORLD_SIZE": per_node,
    }  # fmt: skip
    return {name: str(n) for name, n in numbers.items()} | {"TORCHELASTIC_RUN_ID": "none"}


def ray_variables(node: int, local: int, nodes: int, per_node: int) -> dict[str, str]:
    """Ray Train has the same names, and its own one for the node."""
    variables = torchrun_variables(node, local, nodes, per_node)
    del variables["TORCHELASTIC_RUN_ID"], variables["GROUP_RANK"]
    return variables | {"NODE_RANK": str(node)}


def srun_variables(node: int, local: int, nodes: int, per_node: int) -> dict[str, str]:
    counts = f"{per_node}(x{nodes})" if nodes > 1 else str(per_node)
    numbers = {
        "SLURM_PROCID": node * per_node + local, "SLURM_LOCALID": local, "SLURM_NODEID": node,
        "SLURM_STEP_NUM_TASKS": nodes * per_node, "SLURM_JOB_ID": 7, "SLURM_STEP_ID": 0,
    }  # fmt: skip
    return {name: str(n) for name, n in numbers.items()} | {"SLURM_STEP_TASKS_PER_NODE": counts}


def exit_codes(processes: list[Any]) -> list[int]:
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def write_npz(path: Path, val: int = 8, test: int = 8) -> Path:
    part = images(44 + val + test)
    pixels = part.images.permute(0, 2, 3, 1).numpy()
    rows = np.split(np.arange(len(part)), [44, 44 + val])
    parts = dict(zip(("train", "val", "test"), rows, strict=True))
    arrays = {f"{name}_images": pixels[rows] for name, rows in parts.items()}
    labels = {f"{name}_labels": part.labels[rows].numpy() for name, rows in parts.items()}
    np.savez(path, **arrays, **labels)
    return path


def pool(name: str, folder: Path) -> dict[str, str]:
    """Images without labels, in a file, for a method that learns from some."""
    if not any(cls.needs.extra or cls.needs.unlabeled for cls in method_classes(name).values()):
        return {}
    path = folder / "pool.npz"
    np.savez(path, images=images(30).images.permute(0, 2, 3, 1).numpy())
    option = {"open_set": "joint"} if "open_set" in parameters(name) else {}
    return {"extra": f"npz:{path}", **option}


def write_masks(path: Path) -> Path:
    """Pictures with a class for each pixel."""
    for name in ("images", "masks"):
        (path / name).mkdir(parents=True)
    part = images(60)
    for i, pixels in enumerate(part.images):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path / "images" / f"{i}.png")
        mask = (pixels.sum(0) % len(CLASSES)).to(torch.uint8)
        Image.fromarray(mask.numpy()).save(path / "masks" / f"{i}.png")
    return path
