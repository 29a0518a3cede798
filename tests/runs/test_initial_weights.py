"""The weights that a run starts from: another run's, a file's, and what is refused early."""

import pytest
import torch
from safetensors.torch import save_file

import selfdistill
from selfdistill.core import ArtifactError, ConfigError
from selfdistill.models import build
from selfdistill.recipe import build_run as module
from selfdistill.recipe.schema import parse

TINY = {"epochs": 1, "max_train_images": 32, "batch_size": 16, "method": "ce"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return selfdistill.train(
        model="cifar/resnet8", out=tmp_path_factory.mktemp("weights") / "run", **TINY
    )


def built(**keys):
    recipe = parse({"model": "cifar/resnet8", **TINY, **keys})
    return module.build_run(recipe).network.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k].cpu(), b[k].cpu()) for k in a)


def test_from_a_run(run):
    assert same(built(weights=str(run.path)), run.network.state_dict())


def test_from_a_run_with_averaged_weights(tmp_path):
    averaged = selfdistill.train(model="cifar/resnet8", out=tmp_path / "ema", ema_decay=0.5, **TINY)
    assert same(
        built(weights=str(tmp_path / "ema")), selfdistill.load(averaged.path).network.state_dict()
    )


def test_from_a_file_into_a_module_of_one_s_own(run, tmp_path):
    save_file(run.network.state_dict(), tmp_path / "w.safetensors")
    recipe = parse({**TINY, "weights": str(tmp_path / "w.safetensors")})
    network = build("cifar/resnet8", num_classes=10, in_channels=1)
    assert module.build_run(recipe, model=network).network is network
    assert same(network.state_dict(), run.network.state_dict())


@pytest.mark.parametrize(
    ("weights", "error"),
    [("none.pth", ConfigError), ("bad.safetensors", ArtifactError), ("folder", ConfigError)],
)
def test_refused_before_the_data_are_read(tmp_path, monkeypatch, weights, error):
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(module, "load_data", lambda recipe: pytest.fail("the data were read"))
    with pytest.raises(error):
        built(weights=str(tmp_path / weights))
