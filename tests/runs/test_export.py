"""`Run.export` at another image size: every predictor is scored again, by its own session."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import selfdistill
from selfdistill.core import ConfigError, DataError
from selfdistill.data.in_memory import InMemoryImages

TINY = {"epochs": 1, "max_train_images": 64, "batch_size": 32, "method": "exits"}


def at_size(data, side, classes=None):
    """The held-out images of some data, brought to another size."""

    def resized(images):
        pixels = nn.functional.interpolate(images.images.float(), size=(side, side)).byte()
        return InMemoryImages(pixels, images.targets)

    parts = {part: resized(getattr(data, part)) for part in ("train", "val", "test")}
    return replace(data, **parts, classes=classes or data.classes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return selfdistill.train(
        model="cifar/resnet8", out=tmp_path_factory.mktemp("export") / "run", **TINY
    )


def test_scores_are_those_of_the_images_at_that_size(run):
    data = at_size(run.data, 16)
    result = run.export(exit=2, format="safetensors", image_size=16, data=data)
    predicted = run.method.predict(session_images(run, data))["exit2"].argmax(1)
    labels = data.test.targets.fetch(torch.arange(len(data.test)))
    accuracy = (predicted == labels).double().mean().item()
    assert result.exit_score.test_score == pytest.approx(accuracy, abs=1e-6)
    own = next(score for score in run.exits if score.predictor == "exit2")
    assert result.exit_score.macs > 3 * own.macs
    scores = {score.predictor: score.val_score for score in replaced_scores(run, data)}
    gap = scores["exit2"] - scores["student"]
    assert result.difference.mean == pytest.approx(gap, abs=1e-6)
    assert result.difference.interval.contains(result.difference.mean)


def replaced_scores(run, data):
    """The scores of all predictors on other images."""
    return replace(run.session(), data=data).score_exits("val")


def test_the_student_differs_from_itself_in_nothing(run):
    assert run.export(exit="student", format="safetensors").difference is None


def session_images(run, data):
    """The test images, normalized as the run was trained."""
    session = replace(run.session(), data=data)
    return torch.cat([batch.inputs for batch in session.loader("test")])


def test_a_size_that_the_network_does_not_take(tmp_path):
    network = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16, 10)),
    )
    run = selfdistill.train(model=network, taps="1,3", out=tmp_path / "run", **TINY)
    with pytest.raises(ConfigError, match=r"cannot take images of 16×16"):
        run.export(exit=1, image_size=16, data=at_size(run.data, 16))
    assert not (run.path / "export").exists()


def test_other_classes_are_refused(run):
    classes = [*run.data.classes[:-1], "another"]
    with pytest.raises(DataError, match="has '9' where 'digits' has 'another'"):
        run.export(exit=1, image_size=16, data=at_size(run.data, 16, classes))


def test_what_is_returned_is_shown_in_two_lines(run, tmp_path):
    result = run.export(exit=1, format="safetensors", out=tmp_path / "exit")
    first, second = repr(result).splitlines()
    assert first == f"Export {result.file}"
    assert second.strip() == f"exit1 · {result.verification.summary}"
