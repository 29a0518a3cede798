"""Every method by name, from the call to the files of a run that can be loaded again."""

import inspect

import numpy as np
import pytest
import torch

import selfdistill
import selfdistill.methods  # registers them
from selfdistill.core import METHODS, ConfigError, options
from selfdistill.recipe.build_method import unsupported_reason
from selfdistill.recipe.schema import Recipe
from selfdistill.tasks import Classification

TINY = {"epochs": 2, "max_train_images": 64, "batch_size": 32, "model": "cifar/resnet8"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    place = tmp_path_factory.mktemp("teacher") / "run"
    selfdistill.train(method="ce", model="cifar/resnet14", out=place, epochs=3)
    return place


SERVED = [
    name
    for name in METHODS
    if not unsupported_reason(METHODS[name], Classification)
    and not METHODS[name].needs.distillation_token  # tests/runs/test_distillation_token.py
]


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVED)
def test_trains_is_evaluated_and_loaded_again(name, teacher, tmp_path):
    offline = {"teacher": teacher} if METHODS[name].kind == "offline" else {}
    if trained_by := METHODS[name].teacher_method:
        offline["teacher"] = tmp_path / "teacher"
        keys = TINY | {"model": "cifar/resnet14", "weights": str(teacher)}
        selfdistill.train(method=trained_by, out=tmp_path / "teacher", **keys)
    if METHODS[name].needs.unlabeled:
        pixels = torch.randint(256, (70, 8, 8, 3), dtype=torch.uint8)
        np.savez(tmp_path / "pool.npz", images=pixels.numpy())
        offline["extra"] = f"npz:{tmp_path / 'pool.npz'}"
    if "backbone" in options(METHODS[name]):
        offline["backbone"] = "joint"
    run = selfdistill.train(method=name, out=tmp_path / "run", **TINY, **offline)
    assert run.exits[-1].predictor == "student"
    assert run.exits[-1].test_score is not None
    again = selfdistill.load(run.path)
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(again.network(images), run.network(images))
    assert (run.path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", list(METHODS))
def test_no_option_hides_behind_a_key_of_the_recipe(name):
    assert not set(options(METHODS[name])) & set(Recipe.model_fields)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_option_is_documented_and_has_a_default(name):
    for option in options(METHODS[name]).values():
        assert option.meaning, option.name
        assert option.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", [n for n in SERVED if METHODS[n].kind == "offline"])
def test_an_offline_method_asks_for_its_teacher(name, tmp_path):
    np.savez(tmp_path / "pool.npz", images=np.zeros((40, 8, 8, 3), np.uint8))
    extra = {"extra": f"npz:{tmp_path / 'pool.npz'}"} if METHODS[name].needs.unlabeled else {}
    with pytest.raises(ConfigError, match=f"'{name}' learns from a teacher: give --teacher"):
        selfdistill.train(method=name, out=tmp_path / "run", **TINY, **extra)
    assert not (tmp_path / "run").exists()
