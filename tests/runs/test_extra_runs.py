"""Runs with images without labels: what is refused, what they leave behind, and going on."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import selfdistill
from selfdistill.core import ConfigError, DataError
from selfdistill.data import LoaderWithExtra
from selfdistill.diagnosis import diagnose
from selfdistill.engine.callback import Callback
from selfdistill.models import build
from selfdistill.recipe.build_run import build_run, run_input
from selfdistill.recipe.document import check_early, typed_recipe
from selfdistill.recipe.loaders import train_loader
from selfdistill.recipe.schema import parse

TINY = {"method": "srrl", "model": "cifar/resnet8", "max_train_images": 70, "batch_size": 32}
TINY |= {"epochs": 3, "open_set": "joint", "num_workers": 0}  # two steps an epoch
ABOUT_CHANCE = pytest.mark.filterwarnings("ignore:.*chance", "ignore:.*teacher")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """An archive of 40 colored images: one step a pass."""
    path = tmp_path_factory.mktemp("pool") / "pool.npz"
    write(path, 40)
    return path


def write(path, count, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 12, 10, 3), dtype=np.uint8)
    np.savez(path, images=pixels)


def module():
    torch.manual_seed(3)
    return build("cifar/resnet14", num_classes=10, in_channels=1)


def batches(extra="", **keys):
    """The training batches of a recipe; options of the method are among its keys."""
    keys = TINY | keys
    options = {name: keys.pop(name) for name in ("open_set",) if keys["method"] == "srrl"}
    keys.pop("open_set", None)
    recipe = parse({**keys, "options": options, "extra": extra})
    inputs = run_input(recipe)
    components = build_run(recipe, inputs, teacher=module() if "srrl" in keys["method"] else None)
    process = SimpleNamespace(world_size=1, global_rank=0, device=torch.device("cpu"))
    return train_loader(recipe, inputs.data, components.method, process)


def test_extra_images_come_as_the_training_images_do(pool):
    loader = batches(f"npz:{pool}")
    assert isinstance(loader, LoaderWithExtra)
    (batch,) = next(loader.epoch(0))
    assert batch.extra.shape == batch.inputs.shape == (32, 1, 8, 8)
    assert loader.extra.mean == loader.training.mean
    assert loader.extra.geometry.seed != loader.training.geometry.seed
    assert loader.extra.geometry[1:] == loader.training.geometry[1:]
    assert not isinstance(batches(open_set="none"), LoaderWithExtra)


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({}, ConfigError, "'srrl' with these options learns from images .*: give --extra folder"),
        ({"open_set": "none", "extra": "pool"}, ConfigError, "these options has no use for extra"),
        ({"extra": "few"}, DataError, "31 images of npz:.*few.npz do not fill one batch of 32"),
        (
            {"method": "ce", "extra": "pool"},
            ConfigError,
            "'ce' has no use for .*have: kd3, srrl",
        ),
        ({"method": "kd+at", "extra": "pool"}, ConfigError, "'kd.at' has no use for extra images"),
    ],
)
def test_what_is_refused(keys, error, words, pool):
    write(pool.with_name("few.npz"), 31)
    if source := keys.get("extra"):
        keys = keys | {"extra": f"npz:{pool.with_name(source)}.npz"}
    with pytest.raises(error, match=words):
        batches(**keys)


@pytest.mark.parametrize("source", ["folder:absent", "npz:absent.npz"])
def test_a_path_that_is_not_there_is_refused_at_once(source):
    with pytest.raises(DataError, match=r"there is no (folder|file) 'absent"):
        check_early(typed_recipe({"method": "srrl", "extra": source}))


class Stop(Callback):
    """Ends a run in the middle of a step."""

    class Stopped(BaseException):
        pass

    def __init__(self, step):
        self.step = step

    def on_step(self, step, total_steps):
        if step == self.step:
            raise self.Stopped


@pytest.fixture(scope="module")
def straight(pool, tmp_path_factory):
    place = tmp_path_factory.mktemp("straight") / "run"
    return train(place, pool)


def train(out, pool, **keys):
    keys = {"extra": f"npz:{pool}", "save_every_steps": 1, **TINY, **keys}
    return selfdistill.train(out=out, teacher=module(), **({"quiet": True} | keys))


def weights(run):
    return torch.cat([tensor.flatten().double() for tensor in run.method.state_dict().values()])


def go_on(out):
    return selfdistill.train(out=out, resume=True, teacher=module(), quiet=True)


@ABOUT_CHANCE
@pytest.mark.parametrize("step", [1, 3])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(step, straight, pool, tmp_path):
    with pytest.raises(Stop.Stopped):
        train(tmp_path / "run", pool, callback=Stop(step))
    assert torch.equal(weights(go_on(tmp_path / "run")), weights(straight))


@ABOUT_CHANCE
def test_what_a_run_records_and_holds_against_others(straight, pool, tmp_path):
    facts = json.loads((straight.path / "data.json").read_text())["extra"]
    assert (facts["name"], facts["images"]) == (f"npz:{pool}", 40)
    assert len(facts["sha256"]) == 64
    kept = shutil.copy(pool, tmp_path / "kept.npz")
    for count, seed, words in ((40, 1, "its extra images are others"),
                               (41, 0, "it has 41 extra images and was 40 then")):  # fmt: skip
        write(pool, count, seed)
        with pytest.raises(DataError, match=words):
            go_on(straight.path)
    pool.unlink()
    loaded = selfdistill.load(straight.path)  # without the images
    assert loaded.evaluate() == straight.evaluate()
    shutil.copy(kept, pool)
    assert torch.equal(weights(go_on(straight.path)), weights(straight))


@ABOUT_CHANCE
def test_a_diagnosis_counts_them(pool):
    keys = {"extra": f"npz:{pool}", **TINY}
    report = diagnose(teacher=module(), seconds=0.01, **keys)
    assert report.data.sizes["extra"] == 40
