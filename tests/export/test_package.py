"""A folder to pass on, from Python: what cannot be cut, and runs that stay as they are."""

import json
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from selfdistill.core import ArtifactError, ConfigError, DataError, ResourceError
from selfdistill.data import ImageData
from selfdistill.data.images import InMemoryImages
from selfdistill.export.package import export_run
from selfdistill.recipe.build_method import build_method
from selfdistill.recipe.teachers import describe_data
from selfdistill.records.exit_scores import ExitScore

ROWS = [ExitScore("exit1", 9, 9, 0.5, None), ExitScore("student", 99, 99, 0.6, None)]


def make_run(network, task, path):
    """A run as training leaves it, and its data."""
    pixels = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8)
    images = InMemoryImages(pixels, torch.arange(40) % 5)
    fields = {"classes": list("abcde"), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    fields |= {"crop_padding": 0, "flip": False, "resized_crop": False}
    data = ImageData("mine", images, images, None, **fields)
    path.mkdir()
    recipe = 'method = "muse"\nmodel = "Mine"\ndata = "mine"\nseed = 0\nepochs = 1\n'
    (path / "recipe.toml").write_text(recipe)
    (path / "data.json").write_text(describe_data(data).to_json())
    method = build_method("muse", network, task, "stage1,stage2", {})
    return SimpleNamespace(path=path, method=method, exits=ROWS), data


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

    monkeypatch.setattr("selfdistill.export.package.write_weights", full)
    with pytest.raises(ResourceError, match="could not be written: No space left on device"):
        export_run(run, data, exit=1, format="safetensors")
    assert not list((run.path / "export").iterdir())


def test_data_that_changed_since(tiny_net, tiny_task, tmp_path):
    """The file is normalized as the network learned it, not as the pictures are now."""
    run, data = make_run(tiny_net, tiny_task, tmp_path / "run")
    changed = replace(data, mean=(0.1, 0.2, 0.3))
    result = export_run(run, changed, exit=1, format="safetensors")
    with safe_open(result.file, "pt") as file:
        assert json.loads(file.metadata()["mean"]) == [0.5, 0.5, 0.5]
    with pytest.raises(DataError, match="'mine' has other classes than when"):
        export_run(run, replace(data, classes=list("abcdx")), exit="student")
    for text in ("{", "{}", "[]"):
        (run.path / "data.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"data.json cannot be read"):
            export_run(run, data, exit="student")
