"""From names to networks and data."""

import pytest
import torch

import selfdistill
from selfdistill.core import ConfigError, DataError
from selfdistill.models import build
from selfdistill.recipe.build_run import data_key
from selfdistill.recipe.schema import Recipe
from selfdistill.runs.networks import networks_under_test, shortened

RUN = {"epochs": 1, "max_train_images": 32, "batch_size": 32, "method": "ce", "device": "cpu"}
RUN |= {"model": "cifar/resnet8", "taps": "layer1,layer3"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in what they hold out, and one on larger images."""
    place = tmp_path_factory.mktemp("runs")
    keys = {"one": {}, "two": {"val_fraction": 0.2, "seed": 1}, "large": {"image_size": 16}}
    for name, more in keys.items():
        selfdistill.train(data="digits", out=place / name / "s0", **RUN, **more)
    return place


def test_a_run_gives_its_network_its_taps_and_its_data(runs):
    place = str(runs / "one/s0")
    found, data = networks_under_test([place])
    own = selfdistill.load(place)
    assert list(found) == [place]
    assert found[place].taps == "layer1,layer3"
    pairs = zip(found[place].network.parameters(), own.network.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert (data.name, len(data.train), len(data.val)) == ("digits", 32, 144)
    assert (found[place].mean, found[place].std) == (data.mean, data.std)
    assert networks_under_test([place], taps="auto")[0][place].taps == "auto"


def test_a_model_is_made_for_the_data_of_the_run_beside_it(runs):
    found, data = networks_under_test(["cifar/resnet8", str(runs / "two/s0")], seed=3)
    network = found["cifar/resnet8"].network
    assert network(torch.zeros(2, *data.train.shape)).shape == (2, 10)
    assert len(data.val) == 287
    again = networks_under_test(["cifar/resnet8", str(runs / "two/s0")], seed=3)[0][
        "cifar/resnet8"
    ].network
    assert all(map(torch.equal, network.parameters(), again.parameters()))


def test_runs_with_exits_bring_their_bottlenecks(runs, tmp_path):
    run = selfdistill.train(data="digits", out=tmp_path / "exits", **RUN | {"method": "cskd+exits"})
    place = str(tmp_path / "exits")
    assert networks_under_test([place])[0][place].bottlenecks is None
    found = networks_under_test([place], at_bottlenecks=True)[0][place]
    own = run.method.parts["exits"].exits.bottlenecks
    assert len(found.bottlenecks) == 1
    pairs = zip(found.bottlenecks[0].parameters(), own.parameters(), strict=True)
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in pairs)
    for name, why in ((str(runs / "one/s0"), "trained by ce"), ("cifar/resnet8", "is no run")):
        with pytest.raises(ConfigError, match=f"{why}.*leave --at-bottlenecks out"):
            networks_under_test([name], at_bottlenecks=True)


@pytest.mark.slow
def test_a_model_alone_is_made_for_digits(tmp_path):
    torch.manual_seed(0)
    weights = build("cifar/resnet8", num_classes=10, in_channels=1)
    torch.save(weights.state_dict(), tmp_path / "weights.pt")
    found, data = networks_under_test(["cifar/resnet8"], weights=str(tmp_path / "weights.pt"))
    assert data.name == "digits"
    pairs = zip(found["cifar/resnet8"].network.parameters(), weights.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert networks_under_test(["cifar/resnet8"], image_size=16)[1].train.shape == (1, 16, 16)


def test_runs_that_hold_out_other_images(runs):
    with pytest.warns(UserWarning, match="two/s0 was trained on other images than"):
        networks_under_test([str(runs / "one/s0"), str(runs / "two/s0")])


def test_runs_on_images_of_other_sizes(runs):
    names = [str(runs / "one/s0"), str(runs / "large/s0")]
    with pytest.raises(DataError, match="trained on images of 1 × 16 × 16 and these are 1 × 8 × 8"):
        networks_under_test(names)
    with pytest.raises(DataError, match="one/s0 was trained on images of 1 × 8 × 8"):
        networks_under_test(names, data="digits", image_size=16)


def test_other_data_come_at_the_size_of_the_run(runs):
    _, data = networks_under_test([str(runs / "large/s0")], data="digits")
    assert data.train.shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["runs/nowhere"], "there is no run and no network 'runs/nowhere'"),
        (["resnet8"], "did you mean 'cifar/resnet8'"),
        (["cifar/resnet9"], "did you mean 'cifar/resnet"),
        (["cifar/resnet8", "cifar/resnet8"], "named twice"),
    ],
)
def test_names_that_are_nothing(names, sentence):
    with pytest.raises(ConfigError, match=sentence):
        networks_under_test(names)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["runs/a/ce/s0", "runs/a/muse/s0"], ["ce", "muse"]),
        (["runs/a/ce/s0", "runs/a/muse/s1"], ["ce/s0", "muse/s1"]),
        (["runs/ce", "cifar/resnet8", "runs/muse"], ["ce", "cifar/resnet8", "muse"]),
        (["runs/ce/s0"], ["runs/ce/s0"]),
        (["a", "a/b"], ["a", "a/b"]),
    ],
)
def test_short_names_tell_runs_apart(names, short):
    assert shortened(names, [name for name in names if "resnet" not in name]) == short


CHANGES = {
    "task": "clips",
    "val_fraction": 0.2,
    "image_size": 16,
    "max_train_images": 8,
    "ignore_index": 3,
    "empty_images": "refuse",
    "invalid_boxes": "fix",
    "clip_frames": 4,
    "clip_stride": 2,
    "short_videos": "refuse",
    "data": "npz:other.npz",
    "data_root": "elsewhere",
}


@pytest.mark.parametrize("key", CHANGES)
def test_data_that_are_read_otherwise_are_other_data(key):
    recipe = Recipe()
    other = recipe.model_copy(update={key: CHANGES[key]})
    assert data_key(other) != data_key(recipe)
    assert data_key(recipe.model_copy(update={"seed": 3, "lr": 0.5})) == data_key(recipe)
