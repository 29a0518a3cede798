"""`selfdistill.train` and `load`, as a user of the library calls them."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import selfdistill
from selfdistill.core import ConfigError, DataError, RunBusyError
from selfdistill.data import load as load_data
from selfdistill.engine.callback import Callback

TINY = {"epochs": 1, "max_train_images": 64, "batch_size": 32}
README = Path(__file__).parents[2] / "README.md"


class Own(nn.Module):
    """A network of a user's, with two stages and no idea of this library."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.classify = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.second(self.first(x)).mean((2, 3)))


def test_own_network_is_trained_in_place(tmp_path):
    network = Own()
    before = network.classify.weight.clone()
    run = selfdistill.train(method="exits", model=network, out=tmp_path / "run", **TINY)
    assert run.network is network
    assert not torch.equal(network.classify.weight, before)
    assert [row.predictor for row in run.exits] == ["exit1", "student"]
    assert run.exits[0].macs < run.exits[1].macs


def test_milestones_beyond_the_run_are_said(tmp_path):
    keys = {"method": "ce", "lr_schedule": "step", "milestones": (0, 60), **TINY}
    with pytest.warns(UserWarning, match="never drops at milestone 60"):
        selfdistill.train(model=Own(), out=tmp_path / "run", **keys)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [False, True])
def test_own_network_has_the_usual_memory_format_afterwards(tmp_path, stop):
    """Also where the training was stopped: safetensors writes no other."""
    network, formats = Own(), set()

    class Watcher(Callback):
        def on_step(self, step, total):
            formats.add(network.second[0].weight.is_contiguous())
            if stop:
                raise Stopped

    keys = {"method": "ce", "callback": Watcher(), **TINY}
    with pytest.raises(Stopped) if stop else nullcontext():
        selfdistill.train(model=network, out=tmp_path / "run", **keys)
    assert formats == {False}  # channels last
    assert all(tensor.is_contiguous() for tensor in network.state_dict().values())


def test_a_run_is_loaded_again(tmp_path):
    run = selfdistill.train(out=tmp_path / "run", model="cifar/resnet8", **TINY)
    again = selfdistill.load(tmp_path / "run")
    assert again.exits == run.exits
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(again.network(images), run.network(images))
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert load_file(newest / "model.safetensors").keys() == run.network.state_dict().keys()


def test_own_data_object(tmp_path):
    data = load_data("digits", val_fraction=0.2, max_train_images=64)
    run = selfdistill.train(data=data, model="cifar/resnet8", out=tmp_path / "run", **TINY)
    assert run.exits[-1].test_score is not None


def test_options_of_the_method_are_keywords(tmp_path):
    run = selfdistill.train(
        method="muse",
        model="cifar/resnet8",
        out=tmp_path / "run",
        combine="mul",
        information_weight=0.3,
        **TINY,
    )
    assert run.recipe.options["combine"] == "mul"
    assert 'combine = "mul"' in (tmp_path / "run" / "recipe.toml").read_text()


def test_recipe_file_keeps_its_model_and_data(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('model = "cifar/resnet8"\nmethod = "ce"\nmax_train_images = 64\n')
    run = selfdistill.train(recipe=file, out=tmp_path / "run", epochs=1, batch_size=32)
    assert (run.recipe.model, run.recipe.method) == ("cifar/resnet8", "ce")


def test_a_taken_directory_and_a_wrong_configuration(tmp_path):
    wrong = {**TINY, "method": "muse", "batch_size": 1}
    with pytest.raises(DataError, match="needs 2 or more"):
        selfdistill.train(out=tmp_path / "run", model="cifar/resnet8", **wrong)
    selfdistill.train(
        out=tmp_path / "run", model="cifar/resnet8", **TINY
    )  # nothing was left behind
    with pytest.raises(RunBusyError, match="holds a run already"):
        selfdistill.train(out=tmp_path / "run", model="cifar/resnet8", **TINY)


@pytest.mark.parametrize("options", ["options = 3", "lr = 0", 'model = "cifar/resnet9"'])
def test_faulty_recipes(tmp_path, options):
    file = tmp_path / "mine.toml"
    file.write_text(options + "\n")
    with pytest.raises(ConfigError):
        selfdistill.train(recipe=file, out=tmp_path / "run", **TINY)


def test_averaged_weights_are_what_is_evaluated_and_loaded(tmp_path):
    run = selfdistill.train(out=tmp_path / "run", model="cifar/resnet8", ema_decay=0.9, **TINY)
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    average = load_file(newest / "ema.safetensors")
    again = selfdistill.load(tmp_path / "run")
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, average[f"student.network.{name}"])
        assert torch.equal(value, run.network.state_dict()[name])


def test_a_network_nobody_adapted(tmp_path):
    keys = {"method": "exits", "model": "timm/convnext_atto", "image_size": 32}
    run = selfdistill.train(out=tmp_path / "run", **keys, **TINY)
    assert [row.predictor for row in run.exits] == ["exit1", "exit2", "exit3", "student"]


def test_the_readme_names_what_exists():
    text = README.read_text(encoding="utf-8")
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (README.parent / path).exists(), path
    for recipe in re.findall(r"recipes/[\w-]+\.toml", text):
        assert (README.parent / recipe).exists(), recipe


def test_progress_is_shown_unless_asked_not_to_be(tmp_path, capsys, caplog):
    short = {"epochs": 1, "max_train_images": 64, "batch_size": 32, "method": "ce"}
    with caplog.at_level("INFO"):
        run = selfdistill.train(out=tmp_path / "shown", **short)
        shown = capsys.readouterr()
        selfdistill.train(out=tmp_path / "quiet", quiet=True, **short)
        selfdistill.train(out=tmp_path / "called", callback=Callback(), **short)
    assert "epoch 1/1" in shown.out
    assert capsys.readouterr().out == ""
    assert not [r for r in caplog.records if r.name.startswith("lightning")]
    first, second, third = repr(run).splitlines()
    assert first == f"Run {tmp_path / 'shown'}"
    assert second.split(" · ")[0].strip() == "ce"
    assert third.strip().startswith("test accuracy: student ")


@pytest.mark.parametrize("method", ["snapshot", "snapshot+cskd"])
def test_cycles_are_not_divided_anew(method, tmp_path):
    keys = {"method": method, "model": "cifar/resnet8", "max_train_images": 64, "batch_size": 32}
    selfdistill.train(out=tmp_path / "run", epochs=2, **keys, quiet=True)
    before = (tmp_path / "run" / "recipe.toml").read_text()
    with pytest.raises(ConfigError, match=r"divides its 2 epochs in 2 cycles.*of 4 epochs"):
        selfdistill.train(out=tmp_path / "run", resume=True, epochs=4, quiet=True)
    assert (tmp_path / "run" / "recipe.toml").read_text() == before
    assert selfdistill.train(out=tmp_path / "run", resume=True, epochs=2, quiet=True).exits


def test_the_run_may_be_named_by_resume(tmp_path):
    keys = {"method": "ce", "model": "cifar/resnet8", "quiet": True, **TINY}
    run = selfdistill.train(out=tmp_path / "run", **keys)
    longer = selfdistill.train(resume=run.path, epochs=2, quiet=True)
    assert (longer.path, longer.state["epoch"]) == (run.path, 2)
    with pytest.raises(ConfigError, match="leave out out"):
        selfdistill.train(resume=str(run.path), out=tmp_path / "other")
