"""The formats as a list, and formats whose packages are not installed."""

import sys
from pathlib import Path

import pytest
from exported_runs import make_run
from torch import nn

from selfdistill.core import ArtifactError, ConfigError, MissingExtraError
from selfdistill.export.formats import (
    check_format,
    format_names,
    format_of,
    graph_endings,
    load_format,
    network_file,
)
from selfdistill.export.package import export_run

NAMES = ["executorch", "onnx", "onnx-int8", "openvino", "pt2", "safetensors", "timm"]


def test_a_format_is_named_as_its_file():
    assert format_names() == NAMES
    assert [load_format(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("name", ["onxx", "ONNX", "", "onnx_int8", "../onnx", "__init__"])
def test_there_is_no_such_format(name):
    with pytest.raises(ConfigError, match="there is no format"):
        check_format(name)
    with pytest.raises(ConfigError, match="there is no format"):
        load_format(name)


def test_files_are_known_by_their_endings(tmp_path):
    assert graph_endings() == [".onnx", ".pt2", ".pte", ".xml"]
    for name in NAMES:
        file_format = load_format(name)
        (tmp_path / name).mkdir()
        file = tmp_path / name / file_format.file
        assert network_file(file.parent) is None
        file.write_bytes(b"12345")
        assert network_file(file.parent) == file
        assert format_of(file).file == file_format.file
    assert format_of(Path("model.tflite")) is None


@pytest.mark.parametrize("name", ["safetensors", "timm"])
def test_weights_are_no_network(name, tmp_path):
    with pytest.raises(ConfigError, match="holds weights and no network"):
        load_format(name).open(tmp_path / "model.safetensors")


def test_executorch_has_no_convolutions_over_time(tmp_path):
    network = nn.Sequential(nn.Sequential(nn.Conv3d(3, 4, 3)))
    with pytest.raises(ConfigError, match="no convolutions over time; take --format onnx"):
        load_format("executorch").write(network, tmp_path, None, None, {})


@pytest.mark.parametrize(
    ("name", "module"), [("openvino", "openvino"), ("executorch", "executorch.exir")]
)
def test_without_the_extra_there_is_a_sentence(
    tiny_net, tiny_task, tmp_path, monkeypatch, name, module
):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    run, data = make_run(tiny_net, tiny_task, tmp_path / "run")
    sentence = rf'file needs {name}[.a-z]*; pip install "selfdistill\[{name}\]"$'
    with pytest.raises(MissingExtraError, match=sentence):
        export_run(run, data, exit=1, format=name)
    assert not list((run.path / "export").iterdir())
    file = tmp_path / load_format(name).file
    file.write_bytes(b"")
    with pytest.raises(MissingExtraError, match=sentence):
        load_format(name).open(file)


def test_a_file_that_says_something_else_is_not_kept(tiny_net, tiny_task, tmp_path, monkeypatch):
    run, data = make_run(tiny_net, tiny_task, tmp_path / "run")
    kind = type(load_format("safetensors"))
    write = kind.write
    monkeypatch.setattr(
        kind, "write", lambda *given: lambda images: write(*given)(images).detach() + 0.01
    )
    with pytest.raises(ArtifactError, match="the safetensors file says something else"):
        export_run(run, data, exit=1, format="safetensors")
    assert not list((run.path / "export").iterdir())
