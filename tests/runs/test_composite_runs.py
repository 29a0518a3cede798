"""A student that its method made: evaluated, loaded, exported, a teacher, and no one's weights."""

import pytest
import torch

import selfdistill
from selfdistill.core import ConfigError
from selfdistill.costs.macs import network_cost
from selfdistill.diagnosis import diagnose
from selfdistill.models import build
from selfdistill.modules.composite import CompositeNetwork

TINY = {"model": "cifar/resnet8", "max_train_images": 64, "batch_size": 32, "epochs": 2}
pytestmark = pytest.mark.filterwarnings("ignore:.*chance", "ignore:.*teacher")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("composite")
    selfdistill.train(method="ce", out=place / "teacher", quiet=True, **TINY)
    options = {"schedule": "joint", "taps": "layer1,layer3", "teacher_taps": "layer1,layer3"}
    options |= {"out": place / "run", "quiet": True}
    return selfdistill.train(
        method="residual-kd", teacher=str(place / "teacher"), **options, **TINY
    )


def test_is_evaluated_and_counted_as_it_is_deployed(run):
    assert isinstance(run.network, CompositeNetwork)
    assert [score.predictor for score in run.exits] == ["student"]
    given = network_cost(build("cifar/resnet8", num_classes=10, in_channels=1), example(2))
    assert 0.5 * given.macs < run.exits[0].macs <= given.macs
    assert f"\n  {run.network.description}\n" in repr(run)
    assert [score.predictor for score in run.evaluate("test").exits] == ["student"]


def example(count):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_is_loaded_again_without_its_teacher(run):
    again = selfdistill.load(run.path)
    assert torch.equal(again.network(example(4)), run.network(example(4)))


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_is_exported_whole(run, format, tmp_path):
    result = run.export(exit="student", format=format, out=tmp_path / "e")
    assert result.verification.holds
    assert run.network.description in (tmp_path / "e" / "README.md").read_text()


def test_has_no_code_that_loads_weights_alone(run, tmp_path):
    with pytest.raises(ConfigError, match=r"there is none for student of .*onnx or pt2"):
        run.export(exit="student", format="safetensors", out=tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_can_teach(run, tmp_path):
    for method in ("kd", "at"):
        student = selfdistill.train(
            method=method,
            taps="layer1,layer3",
            teacher=str(run.path),
            out=tmp_path / method,
            quiet=True,
            **TINY,
        )
        teacher = student.method.teacher.network
        teacher = getattr(teacher, "network", teacher)
        assert torch.equal(teacher(example(4)), run.network(example(4)))
        again = selfdistill.load(student.path)
        assert torch.equal(again.network(example(4)), student.network(example(4)))


def test_is_no_weights_for_another_network(run, tmp_path):
    with pytest.raises(ConfigError, match=r"a network of its own making.*can be a teacher"):
        selfdistill.train(method="ce", weights=str(run.path), out=tmp_path / "r", **TINY)
    assert not (tmp_path / "r").exists()


def test_joins_no_other_method(run, tmp_path):
    teacher = str(run.path.parent / "teacher")
    with pytest.raises(ConfigError, match="'residual-kd' trains a network of its own making"):
        selfdistill.train(method="kd+residual-kd", teacher=teacher, out=tmp_path / "r", **TINY)


@pytest.mark.parametrize(
    "key", [{"layer_decay": 0.5}, {"head_lr_factor": 10.0}, {"batchnorm": "frozen"}]
)
def test_how_the_given_network_learns_is_not_said_in_vain(key, run, tmp_path):
    keys = {**TINY, "teacher": str(run.path.parent / "teacher"), **key}
    model = build("cifar/resnet8", num_classes=10, in_channels=1)
    with pytest.raises(ConfigError, match=r"trains a network of its own making.* is about; leave"):
        selfdistill.train(method="residual-kd", **{**keys, "model": model}, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_its_information_and_its_diagnosis(run):
    assert run.information(steps=3, seeds=(0,)).rows
    teacher = str(run.path.parent / "teacher")
    report = diagnose(method="residual-kd", teacher=teacher, seconds=0.1, **TINY)
    student = report.network.predictors[-1]
    assert student.macs == run.exits[0].macs
    terms = {term.name: term for term in report.first_step.terms}
    assert terms["task"].gradient > 0
    assert terms["student/1"].gradient > 0


def test_an_interrupted_run_goes_on_in_its_cycle(run, tmp_path, monkeypatch):
    keys = TINY | {"epochs": 4, "teacher": str(run.path.parent / "teacher"), "quiet": True}
    whole = selfdistill.train(method="residual-kd", out=tmp_path / "whole", **keys)
    selfdistill.train(method="residual-kd", out=tmp_path / "part", **keys | {"epochs": 4})
    for folder in (tmp_path / "part" / "checkpoints").iterdir():
        if folder.name == "step-000008":
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    (tmp_path / "part" / "exits.csv").unlink()
    again = selfdistill.train(out=tmp_path / "part", resume=True, quiet=True)
    ours, theirs = again.method.state_dict(), whole.method.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
