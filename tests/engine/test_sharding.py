"""A teacher whose weights are split among processes is the same teacher."""

import os

import pytest
import torch
from engine_runs import (
    SERVER,
    companions,
    exit_codes,
    final,
    lines,
    network,
    pool,
    rendezvous,
    start_two,
    task,
    write_npz,
)
from lightning_fabric import Fabric

from selfdistill.core import METHODS, ConfigError
from selfdistill.engine.sharding import shard_frozen
from selfdistill.recipe.build_method import build_method, unsupported_reason
from selfdistill.recipe.schema import parse
from selfdistill.tasks import TASKS

LEARN = {
    "device": "cpu", "epochs": 1, "batch_size": 8, "log_every_steps": 1, "num_workers": 0,
    "model": {"norm": "batch"}, "lr": 0.05,
}  # fmt: skip
WIDE = {"norm": "batch", "width": 16}  # whose second stage has a layer that is split
OFFLINE = [
    name
    for name in METHODS
    if METHODS[name].kind == "offline"
    and not unsupported_reason(METHODS[name], TASKS["classification"])
    and not METHODS[name].needs.distillation_token
]


def split_in_two(rank, variables):
    """What each of two processes does; what does not hold ends it."""
    os.environ.update(variables | {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"})
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    torch.manual_seed(0)
    teacher = network(**WIDE).eval()
    x = torch.randn(4, 3, 8, 8)
    expected = teacher(x).detach()
    method = build_method("kd", network(), task(), teacher=teacher)
    whole = sum(p.numel() for p in teacher.parameters())
    split = shard_frozen(fabric, method)
    assert split == 16 * 32 * 9  # a convolution; all else stays whole
    for _ in range(2):
        own = [getattr(p, "to_local", lambda p=p: p)() for p in teacher.parameters()]
        assert sum(p.numel() for p in own) == whole - split // 2
        assert torch.equal(method.teacher(x), expected)  # and the weights are given back behind it
    fabric.setup(method, torch.optim.SGD(method.param_groups(), lr=0.1))


def test_each_process_holds_its_share():
    variables = rendezvous()
    processes = [SERVER.Process(target=split_in_two, args=(r, variables)) for r in (0, 1)]
    for process in processes:
        process.start()
    assert exit_codes(processes) == [0, 0]


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def trained(out, keys):
    assert exit_codes(start_two(out, keys)) == [0, 0]
    return out


def same(out, reference):
    assert lines(out) == lines(reference)
    for stem, tensors in final(reference).tensors.items():
        assert all(torch.equal(final(out).tensors[stem][n], t) for n, t in tensors.items()), stem


def keys_of(npz, method):
    return LEARN | {"data": f"npz:{npz}", "method": method} | companions(method, lambda: WIDE)


def test_a_run_is_the_same_bit_for_bit(tmp_path, npz):
    keys = keys_of(npz, "kd") | {"channels_last": True}
    whole = trained(tmp_path / "whole", keys)
    same(trained(tmp_path / "split", keys | {"shard_teacher": True}), whole)


@pytest.mark.slow
@pytest.mark.parametrize("method", OFFLINE)
def test_every_method_that_has_a_teacher(tmp_path, npz, method):
    keys = keys_of(npz, method) | pool(method, tmp_path)
    whole = trained(tmp_path / "whole", keys)
    codes = exit_codes(start_two(tmp_path / "split", keys | {"shard_teacher": True}))
    if METHODS[method].needs.chosen_extra:  # the teacher scores a pool, which is shared unevenly
        assert codes == [2, 2]
        assert not (tmp_path / "split").exists()  # refused before there is a directory
        return
    assert codes == [0, 0]
    same(tmp_path / "split", whole)


@pytest.mark.parametrize("other", [{"cache_views": 4}, {"compile": True}])
def test_what_does_not_go_with_it(other):
    with pytest.raises(ConfigError, match="shard_teacher"):
        parse({"method": "kd", "teacher": "cifar/resnet18", "shard_teacher": True, **other})


def test_one_process_splits_nothing():
    method = build_method("kd", network(), task(), teacher=network(**WIDE))
    assert shard_frozen(Fabric(accelerator="cpu", devices=1), method) == 0
