"""The files by themselves: any batch, no library of ours, nothing of this machine in them."""

import json
import subprocess
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors import safe_open
from torch import nn

from selfdistill.core import ArtifactError, ConfigError
from selfdistill.export.extract_predictor import (
    extract_predictor,
    load_predictor_state,
    predictor_state,
)
from selfdistill.export.fuse_batchnorm import fuse_batchnorm
from selfdistill.export.normalized_input import NormalizedInput
from selfdistill.export.onnx_export import onnx_runner, write_onnx
from selfdistill.export.safetensors_export import copy_with_weights, write_weights
from selfdistill.export.torch_export import pt2_runner, trace_network, write_pt2
from selfdistill.recipe.build_method import build_method

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
METADATA = {"classes": json.dumps(["größe", "b"])}


@pytest.fixture
def method(tiny_net, tiny_task):
    torch.manual_seed(3)
    for module in tiny_net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    taps = "stage1,stage2,stage3,stage4"
    return build_method("muse", tiny_net, tiny_task, taps, {}).eval()


def images(count=7):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(4))


def normalized(x):
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def run_isolated(code, forbidden, *arguments):
    """What code prints in a process in which some modules cannot be imported."""
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in forbidden)
    lines = [
        sys.executable,
        "-W",
        "error",
        "-c",
        f"import sys\n{block}{code}",
        *map(str, arguments),
    ]
    done = subprocess.run(lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_onnx_by_onnxruntime_and_numpy(method, tmp_path):
    network = NormalizedInput(
        fuse_batchnorm(extract_predictor(method, "exit2")).network, MEAN, STD
    ).eval()
    write_onnx(network, images(2), tmp_path / "m.onnx", metadata=METADATA)
    code = """
import json, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
shape = session.get_inputs()[0].shape
x = numpy.array(json.loads(sys.argv[2]), "float32")
print(json.dumps([classes, shape, session.run(["logits"], {"images": x})[0].tolist()]))
"""
    x = images(3)
    forbidden = ["torch", "selfdistill", "onnx"]
    printed = run_isolated(code, forbidden, tmp_path / "m.onnx", json.dumps(x.tolist()))
    assert printed[:2] == [["größe", "b"], ["batch", 3, 16, 16]]
    expected = method.predict(normalized(x))["exit2"].detach()
    torch.testing.assert_close(torch.tensor(printed[2]), expected, rtol=1e-4, atol=1e-4)
    for count in (1, 7):
        actual = onnx_runner(tmp_path / "m.onnx")(images(count))
        torch.testing.assert_close(actual, network(images(count)).detach(), rtol=1e-4, atol=1e-4)
    assert b".py" not in (tmp_path / "m.onnx").read_bytes()  # no path of this machine


def test_program(method, tmp_path):
    network = NormalizedInput(
        fuse_batchnorm(extract_predictor(method, "exit1")).network, MEAN, STD
    ).eval()
    write_pt2(network, images(2), tmp_path / "m.pt2", metadata=METADATA)
    for count in (1, 7):
        expected = method.predict(normalized(images(count)))["exit1"]
        actual = pt2_runner(tmp_path / "m.pt2")(images(count))
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    with zipfile.ZipFile(tmp_path / "m.pt2") as file:
        contents = [file.read(name) for name in file.namelist()]
    assert not any(b".py" in content for content in contents)  # no path of this machine
    assert not any(content.startswith((b"\x80", b"PK")) for content in contents)  # no pickle


@pytest.mark.slow  # torch takes eight seconds to import what reads the file
def test_program_by_torch_alone(method, tmp_path):
    write_pt2(
        NormalizedInput(extract_predictor(method, "exit1"), MEAN, STD).eval(),
        images(2),
        tmp_path / "m.pt2",
    )
    code = """
import json, torch
network = torch.export.load(sys.argv[1]).module()
x = torch.tensor(json.loads(sys.argv[2]))
print(json.dumps(network(x).tolist()))
"""
    printed = run_isolated(
        code, ["selfdistill"], tmp_path / "m.pt2", json.dumps(images(3).tolist())
    )
    expected = method.predict(normalized(images(3)))["exit1"].detach()
    torch.testing.assert_close(torch.tensor(printed), expected, rtol=1e-5, atol=1e-5)


class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Pairs(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)


class Inverse(nn.Module):
    def forward(self, x):
        return torch.linalg.eigh(x).eigenvalues


@pytest.mark.parametrize("network", [Undecided(), Pairs()])
def test_what_cannot_be_traced(network, capfd):
    with pytest.raises(ConfigError, match="cannot be written as a graph for any number of images"):
        trace_network(network, images(2))
    assert capfd.readouterr().err == ""


def test_what_onnx_has_not(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be written as ONNX.*--format pt2"):
        write_onnx(Inverse(), images(2), tmp_path / "m.onnx")


def test_weights_of_an_exit(method, tmp_path):
    taken = extract_predictor(method, "exit2")
    write_weights(taken, tmp_path / "m.safetensors", metadata=METADATA)
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        keys, notes = set(file.keys()), file.metadata()
    student_keys = set(method.predictors()["student"].state_dict())
    assert {key for key in student_keys if key.startswith(("stage1.", "stage2."))} < keys
    assert all(key in student_keys or key.startswith("head.") for key in keys)
    assert notes == {"format": "pt", **METADATA}
    again = copy_with_weights(tmp_path / "m.safetensors", taken)
    expected = method.predict(normalized(images()))["exit2"]
    torch.testing.assert_close(again(normalized(images())), expected, rtol=1e-5, atol=1e-5)


def test_weights_that_do_not_fit(method):
    student = extract_predictor(method, "student")
    good = predictor_state(student)
    load_predictor_state(student, good)
    for wrong in ({**good, "more": torch.zeros(1)}, {**good, "fc.bias": torch.zeros(7)}):
        with pytest.raises(ArtifactError, match="do not fit"):
            load_predictor_state(student, wrong)
    with pytest.raises(ArtifactError, match="do not fit"):
        load_predictor_state(student, {"fc.bias": good["fc.bias"]})


def test_a_trunk_with_a_head_of_its_own(tiny_net, tiny_task):
    parts = {"head": tiny_net.stage1, "rest": tiny_net[1:]}
    network = nn.Sequential(OrderedDict(parts))
    built = build_method("exits", network, tiny_task, "head,rest.stage2", {})
    taken = extract_predictor(built, "exit1")
    assert "head.0.weight" in {key.partition("network.")[2] for key in taken.state_dict()}
    taken.head = nn.Sequential(nn.Conv2d(8, 5, 1))  # of the same names
    with pytest.raises(ConfigError, match="a layer before the exit is called 'head'"):
        predictor_state(taken)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_the_extra_there_is_a_sentence(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf'needs {package}; pip install "selfdistill\[export\]"'):
        write_onnx(nn.Flatten(), images(2), tmp_path / "m.onnx")


def test_without_onnxruntime_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match='needs onnxruntime; pip install "selfdistill'):
        onnx_runner(tmp_path / "m.onnx")


@pytest.mark.slow
def test_no_onnx_package_is_imported_before_an_export_to_onnx():
    code = """
import json
import selfdistill.early_exit.onnx_export, selfdistill.export.package
print(json.dumps([name for name in sys.argv[1:] if name in sys.modules]))
"""
    assert run_isolated(code, [], "onnx", "onnxscript", "onnxruntime") == []
