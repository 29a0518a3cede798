"""A folder to pass on, from Python: what cannot be cut, and runs that stay as they are."""

import json
import os
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from exported_runs import make_run
from safetensors import safe_open
from torch import nn

from selfdistill.core import ArtifactError, ConfigError, DataError, ResourceError, RunBusyError
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.export.package import default_folder, export_run


class Undecided(nn.Sequential):
    """A network that runs and cannot be traced."""

    def forward(self, x):
        return super().forward(x if x.mean() < 1e9 else x / 2)


def test_a_network_that_cannot_be_cut(tiny_net, tiny_task, tmp_path):
    network = Undecided(OrderedDict(tiny_net.named_children()))
    run, data = make_run(network, tiny_task, tmp_path / "run")
    sentence = "Undecided cannot be cut behind 'stage1' .* take the whole network"
    with pytest.raises(ConfigError, match=sentence):
        export_run(run, data, exit=1)
    with pytest.raises(ConfigError, match=r"cannot be written as a graph.*--format safetensors"):
        export_run(run, data, exit="student", format="pt2")
    assert not list((run.path / "export").iterdir())
    result = export_run(run, data, exit="student", format="safetensors")
    assert result.verification.holds
    assert result.verification.split == "val"


def test_the_run_stays_as_it_is(tiny_net, tiny_task, tmp_path):
    run, data = make_run(tiny_net, tiny_task, tmp_path / "run")
    run.method.train()
    before = {name: tensor.clone() for name, tensor in run.method.state_dict().items()}
    export_run(run, data, exit=1, format="safetensors", out=tmp_path / "a" / "b")
    assert all(module.training for module in run.method.modules())
    assert all(torch.equal(t, before[n]) for n, t in run.method.state_dict().items())
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b"]


def test_a_disk_that_is_full(tiny_net, tiny_task, tmp_path, monkeypatch):
    run, data = make_run(tiny_net, tiny_task, tmp_path / "run")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("selfdistill.export.formats.safetensors.write_weights", full)
    with pytest.raises(ResourceError, match="could not be written: No space left on device"):
        export_run(run, data, exit=1, format="safetensors")
    assert not list((run.path / "export").iterdir())


def test_data_that_changed_since(tiny_net, tiny_task, tmp_path):
    """The file is normalized as the network learned it, not as the pictures are now."""
    run, data = make_run(tiny_net, tiny_task, tmp_path / "run")
    changed = replace(data, mean=(0.1, 0.2, 0.3))
    with pytest.warns(UserWarning, match="pixels have another mean"):
        result = export_run(run, changed, exit=1, format="safetensors")
    with safe_open(result.file, "pt") as file:
        assert json.loads(file.metadata()["mean"]) == [0.5, 0.5, 0.5]
    with pytest.raises(DataError, match="has 'e' where 'mine' has 'x'"):
        export_run(run, replace(data, classes=list("abcdx")), exit="student")
    for text in ("{", "{}", "[]"):
        (run.path / "data.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"data.json cannot be read"):
            export_run(run, data, exit="student")


@pytest.mark.parametrize("score", [1.0, 0.0])
def test_a_table_that_says_another_score_is_refused(tiny_net, tiny_task, tmp_path, score):
    run, data = make_run(tiny_net, tiny_task, tmp_path / "run")
    run.exits = [replace(row, val_score=score) for row in run.exits]
    with pytest.raises(ArtifactError, match=r"the val images and .*exits\.csv says"):
        export_run(run, data, exit="student", format="safetensors")
    assert not list((run.path / "export").iterdir())


@pytest.mark.parametrize(
    ("side", "fuse", "format", "name"),
    [
        ((16, 16), True, "onnx", "exit1-onnx"),
        ((24, 24), True, "pt2", "exit1-pt2-24"),
        ((24, 32), True, "onnx", "exit1-onnx-24x32"),
        ((16, 16), False, "onnx", "exit1-onnx-unfused"),
        ((16, 16), False, "safetensors", "exit1-safetensors"),
    ],
)
def test_the_folder_has_in_its_name_what_tells_it_from_others(
    tiny_net, tiny_task, tmp_path, side, fuse, format, name
):
    run, data = make_run(tiny_net, tiny_task, tmp_path / "run")
    images = InMemoryImages(torch.zeros(2, 3, *side, dtype=torch.uint8), torch.zeros(2).long())
    folder = default_folder(run.path, "exit1", format, replace(data, train=images), fuse)
    assert folder == run.path / "export" / name


def test_of_two_exports_at_once_the_later_one_is_told(tiny_net, tiny_task, tmp_path, monkeypatch):
    run, data = make_run(tiny_net, tiny_task, tmp_path / "run")

    def other_process(*_):
        (run.path / "export" / "exit1-safetensors" / "x").mkdir(parents=True)

    monkeypatch.setattr("selfdistill.export.package._require_agreement", other_process)
    with pytest.raises(RunBusyError, match="exists already"):
        export_run(run, data, exit=1, format="safetensors")


def test_everybody_may_read_what_the_umask_leaves(tiny_net, tiny_task, tmp_path):
    run, data = make_run(tiny_net, tiny_task, tmp_path / "run")
    before = os.umask(0o027)
    try:
        result = export_run(run, data, exit=1, format="safetensors")
    finally:
        os.umask(before)
    assert {f.stat().st_mode & 0o777 for f in result.path.iterdir()} == {0o640}
