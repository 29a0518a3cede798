"""Runs without labels: which images come, the choice among them, its resume, and what is left."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import selfdistill
from selfdistill.core import ConfigError
from selfdistill.data import UnlabeledLoader
from selfdistill.engine.callback import Callback
from selfdistill.models import build
from selfdistill.recipe.build_run import build_run, run_input
from selfdistill.recipe.loaders import train_loader
from selfdistill.recipe.schema import parse

TINY = {"method": "kd3", "model": "cifar/resnet8", "batch_size": 16, "epochs": 3, "confidence": 0.5}
pytestmark = pytest.mark.filterwarnings("ignore:.*chance", "ignore:.*teacher")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained teacher and 70 images: four steps an epoch."""
    folder = tmp_path_factory.mktemp("unlabeled")
    pixels = np.random.default_rng(0).integers(0, 256, (70, 12, 10, 3), dtype=np.uint8)
    np.savez(folder / "pool.npz", images=pixels)
    keys = {"model": "cifar/resnet8", "epochs": 2, "max_train_images": 200, "quiet": True}
    selfdistill.train(method="ce", out=folder / "teacher", **keys)
    return folder


def train(place, out, **keys):
    given = {"extra": f"npz:{place / 'pool.npz'}", "teacher": str(place / "teacher"), "quiet": True}
    return selfdistill.train(out=out, **TINY, **(given | keys))


class Stop(Callback):
    """Ends a run in the middle of an epoch."""

    class Stopped(BaseException):
        pass

    def on_step(self, step, total_steps):
        if step == 6:
            raise self.Stopped


def test_learns_evaluates_exports_and_goes_on(place, tmp_path):
    run = train(place, tmp_path / "run")
    assert run.state["step"] == 12  # epochs of the 70 images
    assert "transfer block" in run.network.description
    assert run.exits[-1].test_score is not None
    assert run.export(exit="student", out=tmp_path / "e").verification.holds
    again = selfdistill.load(run.path)
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(again.network(x), run.network(x))
    with pytest.raises(Stop.Stopped):
        train(place, tmp_path / "part", save_every_steps=1, callback=Stop(), quiet=False)
    saved = max((tmp_path / "part" / "checkpoints").iterdir())
    assert (saved / "extra.safetensors").exists()
    part = selfdistill.train(out=tmp_path / "part", resume=True, quiet=True)
    ours, theirs = part.method.state_dict(), run.method.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_batches_are_of_the_chosen_images_alone(place):
    given = {"extra": f"npz:{place / 'pool.npz'}", "teacher": str(place / "teacher")}
    recipe = parse({"method": "kd3", "model": "cifar/resnet8", "batch_size": 16, **given})
    inputs = run_input(recipe)
    method = build_run(recipe, inputs).method
    process = SimpleNamespace(world_size=1, global_rank=0, device=torch.device("cpu"))
    loader = train_loader(recipe, inputs.data, method, process)
    assert isinstance(loader, UnlabeledLoader)
    assert loader.steps_per_epoch == 4
    steps = [batch for step in loader.epoch(0) for batch in step]
    assert all(batch.targets is None and batch.extra is None for batch in steps)
    assert len({int(i) for batch in steps for i in batch.indices}) == 64
    assert sum(len(batch.inputs) for batch in loader.pool()) == 70
    loader.choose(torch.tensor([3, 5, 8]))
    indices = torch.cat([batch.indices for step in loader.epoch(1) for batch in step])
    assert indices.unique().tolist() == [3, 5, 8]
    assert len(indices) == 64
    rest = torch.cat([batch.indices for step in loader.epoch(1, 2) for batch in step])
    assert torch.equal(rest, indices[32:])


def test_refused_without_extra_images(place, tmp_path):
    with pytest.raises(ConfigError, match="'kd3' learns from images without labels alone: give"):
        train(place, tmp_path / "run", extra="")
    assert not (tmp_path / "run").exists()


def test_a_custom_loop_gives_no_labels(place):
    teacher = selfdistill.load(place / "teacher").network
    images = torch.randn(4, 1, 8, 8)
    torch.manual_seed(0)
    network = build("cifar/resnet8", num_classes=10, in_channels=1)
    criterion = selfdistill.wrap(network, "kd3", example=images, classes=10, teacher=teacher)
    criterion(images, None).backward()
    scores = criterion.method.eval().score_extra(images)
    assert scores.shape == (4, 2, 10)
