"""Weights from files: what is taken, what is refused, and that no code in them runs."""

import argparse
import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from selfdistill.core import ArtifactError, ConfigError, ResourceError
from selfdistill.core.fake_quantization import add_fake_quantization
from selfdistill.models import build, convert_weights, load_weights, weights


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch, request):
    """Converts pickled files here, which is quick, unless a test is about the other process."""

    def convert(source, target):
        try:
            convert_weights.convert(str(source), str(target))
        except ValueError as error:
            return convert_weights.REFUSED, str(error)
        except Exception:
            return 1, ""
        return 0, ""

    if "process" not in request.node.name:
        monkeypatch.setattr(weights, "_convert", convert)


def test_ranges_of_simulated_int8_are_left_behind(tmp_path):
    simulated = network()
    add_fake_quantization(simulated)
    save_file(simulated.state_dict(), tmp_path / "w.safetensors")
    plain = network()
    load_weights(plain, tmp_path / "w.safetensors")
    assert same(plain, simulated.state_dict())


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
        lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        lambda s: {
            "model_state_dict": s,
            "args": argparse.Namespace(lr=0.1),
            "best": np.float64(1),
        },
        lambda s: {"model_ema": s, "optimizer": {"state": {}, "param_groups": []}},
        lambda s: {"state_dict": {f"net.encoder.{k}": v for k, v in s.items()}, "epoch": 2},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"params_of_mine": s, "step": 3},
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".pth.tar"])
def test_takes_the_usual_shapes_of_files(tmp_path, wrap, suffix):
    net, want, path = network(), values(), tmp_path / f"w{suffix}"
    torch.save(wrap(want), path)
    load_weights(net, path)
    assert same(net, want)


@pytest.mark.parametrize(
    ("read", "other"),
    [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("student", "teacher")],
)
def test_says_which_of_several_networks_it_read(tmp_path, read, other):
    net, want, path = network(), values(), tmp_path / "w.pth"
    torch.save({other: {k: v + 1 for k, v in want.items()}, read: want, "epoch": 3}, path)
    with pytest.warns(UserWarning, match=f"'{read}' was read, and not '{other}', of its entries"):
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
    bad["0.weight"] = torch.zeros(2, 2, 1, 1)
    bad |= {f"extra{i}": torch.zeros(1) for i in range(5)}
    torch.save(bad, tmp_path / "w.pt")
    with pytest.raises(ArtifactError) as caught:
        load_weights(net, tmp_path / "w.pt")
    assert str(caught.value) == (
        f"weights '{tmp_path / 'w.pt'}' do not fit Sequential: 1 missing (0.bias), "
        "5 unexpected (extra0, extra1, extra2, …), "
        "1 of another shape (0.weight (2, 2, 1, 1) for (2, 1, 1, 1))"
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


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "w.txt", "w", ""])
def test_missing_or_unknown_kind_of_file(tmp_path, name):
    with pytest.raises(ConfigError, match=r"there is no weights file|are not a"):
        load_weights(network(), tmp_path / name)


def test_unreadable_file(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "w.pt").touch()
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(ResourceError, match="cannot be read: Permission denied"):
        load_weights(network(), tmp_path / "w.pt")


def loaded_with_remark(net, file):
    with pytest.warns(UserWarning, match="weights") as caught:
        load_weights(net, file)
    return str(caught[0].message)


def test_a_head_for_other_classes_starts_anew(tmp_path):
    torch.save(build("cifar/resnet8", num_classes=100).state_dict(), tmp_path / "w.pt")
    net = build("cifar/resnet8", num_classes=10)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    remark = loaded_with_remark(net, tmp_path / "w.pt")
    want = torch.load(tmp_path / "w.pt")
    head = [k for k in before if before[k].shape[:1] == (10,)]
    assert len(head) == 2
    assert all(name in remark for name in head)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name] if name in head else want[name]), name


def test_a_head_that_the_file_lacks_starts_anew(tmp_path):
    net, want = network(), {k: v for k, v in values().items() if not k.startswith("3.")}
    torch.save(want, tmp_path / "w.pt")
    assert "3.weight, 3.bias left out" in loaded_with_remark(net, tmp_path / "w.pt")
    assert torch.equal(net[0].weight, want["0.weight"])


def test_half_a_head_is_not_taken(tmp_path):
    net, bad = network(), values()
    bad["3.weight"] = torch.zeros(4, 2)  # the bias would fit
    before = net[3].bias.clone()
    torch.save(bad, tmp_path / "w.pt")
    loaded_with_remark(net, tmp_path / "w.pt")
    assert torch.equal(net[3].bias, before)


def test_a_narrower_network_is_no_other_head(tmp_path):
    torch.save(build("cifar/resnet8", num_classes=10).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ArtifactError, match="of another shape"):
        load_weights(build("cifar/resnet8x4", num_classes=10), tmp_path / "w.pt")


def test_names_of_another_library_are_matched_by_order(tmp_path):
    net, want = network(), values()
    names = {"0": "_conv_stem", "1": "_bn0", "3": "_fc"}
    other = {f"{names[k[0]]}{k[1:]}": v for k, v in want.items()}
    torch.save(other, tmp_path / "w.pt")
    assert "matched by order and shape" in loaded_with_remark(net, tmp_path / "w.pt")
    assert same(net, want)


def test_an_order_of_other_shapes_is_not_matched(tmp_path):
    other = {f"a.layer{i}.weight": torch.zeros(2, 2) for i in range(8)}
    torch.save(other, tmp_path / "w.pt")
    with pytest.raises(ArtifactError, match="8 unexpected"):
        load_weights(network(), tmp_path / "w.pt")


def test_the_student_of_a_training_module(tmp_path):
    want = values()
    state = {f"teacher.{k}": v + 1 for k, v in want.items()}
    state |= {f"student.{k}": v for k, v in want.items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(5)}}, tmp_path / "w.ckpt")
    net = network()
    assert "outside of 'student.' left out" in loaded_with_remark(net, tmp_path / "w.ckpt")
    assert same(net, want)


def test_two_state_dicts_of_unknown_names(tmp_path):
    torch.save({"generator": values(), "critic": values()}, tmp_path / "w.pt")
    with pytest.raises(ArtifactError, match=r"several state dicts \(generator, critic\)"):
        load_weights(network(), tmp_path / "w.pt")


def kinds():
    weight = torch.ones(2, 1, 1, 1)
    return {
        "int8": weight.to(torch.int8),
        "uint8": weight.to(torch.uint8),
        "bool": weight.bool(),
        "complex": weight.to(torch.complex64),
        "sparse": weight.to_sparse(),
        "meta": weight.to("meta"),
        "not finite": weight / 0,
    }


@pytest.mark.parametrize("kind", kinds())
def test_tensors_that_are_no_weights(tmp_path, kind):
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    torch.save({**values(), "0.weight": kinds()[kind]}, tmp_path / "w.pt")
    with pytest.raises(ArtifactError, match=r"0\.weight|hold more than tensors"):
        load_weights(net, tmp_path / "w.pt")
    assert same(net, before)


def test_a_compressed_archive(tmp_path):
    torch.save(values(), tmp_path / "a.pt")
    source = zipfile.ZipFile(tmp_path / "a.pt")
    target = zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED)
    with source, target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(ArtifactError, match="compressed archive"):
        load_weights(network(), tmp_path / "w.pt")


def test_tied_tensors(tmp_path):
    tied = torch.ones(2, 2)
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    torch.save({"0.weight": tied, "1.weight": tied}, tmp_path / "w.pt")
    load_weights(net, tmp_path / "w.pt")
    assert net[0].weight.eq(1).all()
    assert net[1].weight.eq(1).all()


def test_a_process_of_its_own_reads_pickles(tmp_path):
    net, want = network(), values()
    torch.save({"state_dict": want}, tmp_path / "w.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(net, tmp_path / "w.pt")
    assert same(net, want)


@pytest.mark.slow
def test_a_process_of_its_own_has_little_memory(tmp_path):
    """A pickle of a few bytes that asks for 64 GB."""
    (tmp_path / "w.pt").write_bytes(b"\x80\x04\x8d" + (1 << 36).to_bytes(8, "little"))
    with pytest.raises(ArtifactError, match="are corrupt"):
        load_weights(network(), tmp_path / "w.pt")


def test_a_process_of_its_own_runs_no_code(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"0.weight": Malicious(trace)}, tmp_path / "w.pt")
    with pytest.raises(ArtifactError, match="hold more than tensors"):
        load_weights(network(), tmp_path / "w.pt")
    assert not trace.exists()
