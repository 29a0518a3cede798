"""`selfdistill information`: numbers, files, and what cannot be measured."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import TINY, pictures, say

QUICK = ("--steps", 3, "--batch-size", 32, "--device", "cpu")


@pytest.fixture(scope="module")
def result(first, tmp_path_factory):
    """Output for the run and for a fresh network like it, and its directory."""
    directory = tmp_path_factory.mktemp("information") / "out"
    arguments = (
        "information",
        first[1],
        "--runs",
        "cifar/resnet10_w16",
        *QUICK,
        "--out",
        directory,
    )
    return say(*arguments), directory


def test_the_table_on_the_screen_is_that_of_the_file(result, first):
    shown, directory = result
    assert shown.code == 0, shown.err
    assert shown.err == ""
    assert "On 128 validation images" in shown.out
    assert "2 ln 2 = 1.386 is chance" in shown.out
    with (directory / "information.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["network"] for row in rows} == {str(first[1]), "cifar/resnet10_w16"}
    last = [row for row in rows if (row["step"], row["split"]) == ("3", "held out")]
    figures = re.findall(r"^(MI|SI) of module (\d) +([\d.]+) +([\d.]+)$", shown.out, re.M)
    assert len(figures) == 6
    for kind, module, *losses in figures:
        term = f"{'mutual' if kind == 'MI' else 'self'}/{module}"
        want = [float(row["loss"]) for row in last if row["term"] == term]
        np.testing.assert_allclose([float(loss) for loss in losses], want, atol=5.1e-4)


def test_writes_a_page_and_a_picture(result):
    shown, directory = result
    for name in ("information.html", "information.svg", "information.csv"):
        assert (directory / name).stat().st_size > 1000
        assert str(directory / name) in shown.out
    assert "selfdistill information" in (directory / "information.html").read_text(encoding="utf-8")


def test_overwrites_nothing(result, first):
    _, directory = result
    before = (directory / "information.csv").read_bytes()
    again = say("information", first[1], *QUICK, "--out", directory)
    assert again.code == 3
    assert "holds a measurement already; choose another --out" in again.err
    assert (directory / "information.csv").read_bytes() == before


def test_takes_the_next_free_folder(first):
    for name in ("information", "information-2"):
        assert say("information", first[1], *QUICK, "--seeds", 2).code == 0
        text = Path(name, "information.csv").read_text()
        assert {line.split(",")[1] for line in text.splitlines()[1:]} == {"0", "1"}
    first_, second = (
        Path(n, "information.csv").read_text() for n in ("information", "information-2")
    )
    assert first_ == second


def test_behind_the_bottlenecks_of_a_run(first):
    place = Path(first[1])
    found = say("information", place, *QUICK, "--at-bottlenecks", "--out", "b")
    assert found.code == 0, found.err
    assert "frozen networks, behind their exits' bottlenecks" in found.out
    rows = csv.DictReader(Path("b/information.csv").read_text(encoding="utf-8").splitlines())
    taps = {row["term"]: row["tap"] for row in rows}
    assert all(tap.endswith(" bottleneck") for tap in taps.values())
    assert set(taps) == {f"{term}/{i}" for term in ("mutual", "self") for i in (1, 2, 3)}


def test_leaves_the_run_as_it_is(run):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    result = say("information", run, *QUICK, "--trainable", "--out", "o")
    assert result.code == 0, result.err
    assert "trainable networks" in result.out
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def refused(*arguments):
    result = say("information", *arguments)
    assert "Traceback" not in result.err + result.out
    assert result.err.startswith("error: ")
    assert not Path("information").exists()
    return result.err, result.code


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["runs/nowhere"], 2, "there is no run and no network 'runs/nowhere'"),
        (["."], 2, "holds no run"),
        (["cifar/resnet8", "--taps", "layer1"], 2, "tapped at one module and information needs"),
        (["cifar/resnet8", "--taps", "layr1,layer2"], 2, "did you mean 'layer1'"),
        (["cifar/resnet8", "--critic", "concatt"], 2, "did you mean 'concat'"),
        (["cifar/resnet8", "--estimator", "mine"], 2, "no estimator 'mine'"),
        (["cifar/resnet8", "--data", "digts"], 4, "did you mean 'digits'"),
        (["cifar/resnet8", "--lr", "0"], 2, "lr=0"),
        (["cifar/resnet8", "--device", "gpu"], 2, "device = 'gpu' does not fit"),
        (["cifar/resnet8", "cifar/resnet8"], 2, "named twice"),
        (["cifar/resnet8", "--at-bottlenecks"], 2, "is no run and so has no bottlenecks"),
        (["cifar/resnet8", "--at-bottlenecks", "--taps", "layer1,layer2"], 2, "leave out --taps"),
        ([], 2, "Missing argument"),
    ],
)
def test_bad_input(arguments, code, sentence):
    if not arguments:
        assert sentence in say("information").err
        return
    message, exit_code = refused(*arguments, "--steps", 2)
    assert sentence in message
    assert exit_code == code


def test_images_that_the_run_does_not_take(run, tmp_path):
    pictures(tmp_path / "color", each=10, side=8)
    message, code = refused(run, "--data", f"folder:{tmp_path / 'color'}")
    assert "1 × 8 × 8 and these are 3 × 8 × 8" in message
    assert code == 4


def test_a_run_that_has_not_begun(run):
    shutil.rmtree(run / "checkpoints")
    message, code = refused(run)
    assert "has no checkpoint yet" in message
    assert code == 2


def test_a_run_that_held_nothing_out(tmp_path):
    pictures(tmp_path / "flowers", each=20, side=8)
    arguments = (
        "--data",
        f"folder:{tmp_path / 'flowers'}",
        "--set",
        "val_fraction=0",
        "--method",
        "ce",
    )
    assert say("train", *TINY, *arguments, "--batch-size", 8, "--out", "run").code == 0
    result = say("information", "run", "--steps", 2, "--device", "cpu")
    assert "held out from the critics" in result.out
    assert result.code == 0
