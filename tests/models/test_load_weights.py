"""Weights from files: what is taken, what is refused, and that no code in them runs."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from selfdistill.core import ArtifactError, ConfigError, ResourceError
from selfdistill.models import load_weights


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


def values():
    torch.manual_seed(1)
    return {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in state().items()}


def state():
    return network().state_dict()


def same(net, want):
    return all(torch.equal(v, want[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"lr": 0.1}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_takes_the_usual_shapes_of_files(tmp_path, wrap, suffix):
    net, want, path = network(), values(), tmp_path / f"w{suffix}"
    torch.save(wrap(want), path)
    load_weights(net, path)
    assert same(net, want)


def test_takes_safetensors(tmp_path):
    net, want = network(), values()
    save_file(want, tmp_path / "w.safetensors")
    load_weights(net, tmp_path / "w.safetensors")
    assert same(net, want)


def test_keeps_a_prefix_that_is_the_networks_own(tmp_path):
    wrapped = nn.ModuleDict({"module": nn.Linear(2, 2)})
    torch.save({"module.weight": torch.ones(2, 2), "module.bias": torch.ones(2)}, tmp_path / "w.pt")
    load_weights(wrapped, tmp_path / "w.pt")
    assert wrapped["module"].weight.eq(1).all()


def test_does_without_the_count_of_batches(tmp_path):
    net, want = network(), values()
    torch.save({k: v for k, v in want.items() if "num_batches" not in k}, tmp_path / "w.pt")
    load_weights(net, tmp_path / "w.pt")
    assert same(net, want)


def test_names_what_does_not_fit_and_changes_nothing(tmp_path):
    net, bad = network(), values()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    del bad["0.bias"]
    bad["3.weight"] = torch.zeros(4, 2)
    bad |= {f"extra{i}": torch.zeros(1) for i in range(5)}
    torch.save(bad, tmp_path / "w.pt")
    with pytest.raises(ArtifactError) as caught:
        load_weights(net, tmp_path / "w.pt")
    assert str(caught.value) == (
        f"weights '{tmp_path / 'w.pt'}' do not fit Sequential: 1 missing (0.bias), "
        "5 unexpected (extra0, extra1, extra2, …), "
        "1 of another shape (3.weight (4, 2) for (3, 2))"
    )
    assert same(net, before)


class Malicious:
    """Unpickled without care, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("dump", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o, 2))])
def test_code_in_a_file_is_never_run(tmp_path, dump):
    trace, path = tmp_path / "trace", tmp_path / "w.pt"
    dump({"0.weight": Malicious(trace)}, path)
    with pytest.raises(ArtifactError, match="hold more than tensors and were not loaded"):
        load_weights(network(), path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"garbage" * 9, bytes(range(256)) * 4])
def test_corrupt_file(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="are corrupt"):
        load_weights(network(), path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_truncated_file(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(values(), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match="are corrupt"):
        load_weights(network(), path)


@pytest.mark.parametrize("content", [[torch.ones(1)], {"epoch": 3}, {1: torch.ones(1)}, 7])
def test_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ArtifactError, match="hold no state dict"):
        load_weights(network(), tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "w.bin", "w", ""])
def test_missing_or_unknown_kind_of_file(tmp_path, name):
    with pytest.raises(ConfigError, match=r"there is no weights file|are not a"):
        load_weights(network(), tmp_path / name)


def test_unreadable_file(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("torch.load", refuse)
    (tmp_path / "w.pt").touch()
    with pytest.raises(ResourceError, match="cannot be read: Permission denied"):
        load_weights(network(), tmp_path / "w.pt")
