"""`selfdistill exits`: the figures of the run, what they cost, and the run without distillation."""

import csv
import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from command import TINY, say
from safetensors.torch import save_file

from selfdistill.costs.macs import network_cost
from selfdistill.engine.run_directory import RunDirectory
from selfdistill.export.extract_predictor import extract_predictor
from selfdistill.models import build
from selfdistill.runs.run import load

NAMES = ["exit1", "exit2", "exit3", "student"]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "exits-measured.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def pair(first, tmp_path_factory) -> Path:
    """A folder with a small run and its baseline, trained by the command that is told."""
    place = tmp_path_factory.mktemp("pair")
    shutil.copytree(first[1], place / "muse")
    [command] = re.findall(r"^  (selfdistill train .*)$", say("exits", place / "muse").out, re.M)
    said = say(*shlex.split(command)[1:])
    assert said.code == 0, said.err
    return place


@pytest.fixture(scope="session")
def measured(pair, tmp_path_factory):
    """The run beside its baseline, and what the command says; not to be changed."""
    run = Path(shutil.copytree(pair, tmp_path_factory.mktemp("both") / "runs")) / "muse"
    return run, say("exits", run, "--threads", 1, "--batch-size", 2)


def test_the_figures_are_those_of_the_run(measured):
    run, said = measured
    assert said.code == 0, said.err
    found = rows(run)
    assert [row["predictor"] for row in found] == [*NAMES, "baseline"]
    with (run / "exits.csv").open() as stream:
        for row, want in zip(found, csv.DictReader(stream), strict=False):
            for key in ("val_accuracy", "test_accuracy", "parameters", "macs"):
                assert float(row[key]) == pytest.approx(float(want[key])), key
            assert float(row["cpu_ms_2"]) > 0
            assert float(row["test_ece"]) >= 0
            assert row["threads"] == "1"
            assert row["baseline"].endswith("muse-ce")


def test_the_calibration_is_that_of_the_run(measured):
    run, _ = measured
    with (run / "calibration.csv").open() as stream:
        bins = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    for row in rows(run)[:4]:
        own = [b for b in bins if b["predictor"] == row["predictor"] and b["images"] != "0"]
        total = sum(int(b["images"]) for b in own)
        gaps = (int(b["images"]) * abs(float(b["accuracy"]) - float(b["confidence"])) for b in own)
        assert float(row["test_ece"]) == pytest.approx(sum(gaps) / total, abs=1e-6)


def test_sizes_are_those_of_files(measured, tmp_path):
    run, _ = measured
    method = load(run).method
    for row in rows(run)[:4]:
        save_file(
            extract_predictor(method, row["predictor"]).state_dict(), tmp_path / "one.safetensors"
        )
        assert int(row["bytes"]) == (tmp_path / "one.safetensors").stat().st_size


def test_differences_are_those_of_the_accuracies(measured):
    run, said = measured
    *exits, baseline = rows(run)
    for row in exits:
        for split in ("val", "test"):
            gap = float(row[f"{split}_accuracy"]) - float(baseline[f"{split}_accuracy"])
            low, mean, high = (float(row[f"{split}_{k}"]) for k in ("low", "difference", "high"))
            assert mean == pytest.approx(gap, abs=1e-6)
            assert low < mean < high
    words = re.findall(r"(better|worse|within noise) *$", said.out, re.M)
    assert words == [_word(float(row["test_low"]), float(row["test_high"])) for row in exits]


def _word(low: float, high: float) -> str:
    return "within noise" if low <= 0 <= high else "better" if low > 0 else "worse"


def test_the_front_is_starred(measured):
    run, said = measured
    front = [row["predictor"] for row in rows(run) if row["front"] == "1"]
    assert re.findall(r"^\*  (\w+) ", said.out, re.M) == front
    assert front
    assert "baseline" not in front


def test_fits_a_narrow_terminal(measured):
    """A table is as wide as the terminal at most: what would not fit would be cut."""
    _, said = measured
    table = [line for line in said.out.splitlines() if line.endswith(" ms")]
    assert len(table) == 5
    assert max(map(len, table)) <= 80
    assert "…" not in "".join(table)


def test_leaves_a_picture_and_a_page(measured):
    run, said = measured
    for name in ("exits-measured.csv", "exits-measured.svg", "report.html"):
        assert f"{run / name}\n" in said.out
        assert (run / name).exists()
    picture = (run / "exits-measured.svg").read_text()
    assert "baseline" in picture
    assert "var(" not in picture
    assert "<h2>Size and time</h2>" in (run / "report.html").read_text()


def test_the_run_itself_is_left_alone(measured, first):
    run, _ = measured
    for name in ("exits.csv", "recipe.toml", "metrics.jsonl"):
        assert (run / name).read_bytes() == (first[1] / name).read_bytes()


def test_costs_as_the_paper_counts_them(run):
    said = say("exits", run, "--count", "paper", "--batch-size", 1)
    assert said.code == 0, said.err
    assert "Costs as MUSE's Table 3 counts them" in said.out
    network = build("cifar/resnet10_w16", num_classes=10, in_channels=1)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    found = rows(run)
    assert int(found[-1]["parameters"]) == sum(c.weight.numel() for c in convolutions)
    assert int(found[0]["parameters"]) < network_cost(network, torch.zeros(1, 1, 8, 8)).parameters


def test_a_baseline_alone_is_one_network(pair, tmp_path):
    run = Path(shutil.copytree(pair / "muse-ce", tmp_path / "plain"))
    said = say("exits", run, "--batch-size", 1)
    assert said.code == 0, said.err
    assert [row["predictor"] for row in rows(run)] == ["student"]
    assert "no baseline" not in said.out
    assert "*" not in said.out


@pytest.mark.slow
def test_what_is_no_network_by_itself_has_no_latency(tmp_path):
    say("train", *TINY, "--method", "one", "--out", tmp_path / "run")
    said = say("exits", tmp_path / "run", "--batch-size", 1)
    assert said.code == 0, said.err
    assert "Note: ensemble has no latency and no file: 'ensemble' helps to train" in said.out
    ensemble, student = rows(tmp_path / "run")
    assert ensemble["bytes"] == ensemble["cpu_ms_1"] == ""
    assert float(student["cpu_ms_1"]) > 0


def test_a_run_that_was_killed_is_evaluated_where_it_stands(run):
    for name in ("exits.csv", "report.html", "confusion.csv", "calibration.csv"):
        (run / name).unlink()
    entries = [e for e in RunDirectory(run).metrics() if e["kind"] != "final"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    said = say("exits", run, "--batch-size", 1)
    assert said.code == 0, said.err
    assert (
        "Note: this run is not finished: the weights are those of step 2, after 1 of 1" in said.out
    )
    assert "the weights are those of step 2" in (run / "report.html").read_text()


def test_a_run_that_trains_is_not_touched(run):
    with RunDirectory(run).held():
        said = say("exits", run)
    assert said.code == 3
    assert f"another process is training in {run}; measure its exits when it is done" in said.err
    assert not (run / "exits-measured.csv").exists()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--count", "actuel"], 2, "cannot be counted 'actuel' (did you mean 'actual'?)"),
        (["--baseline", "nowhere"], 2, "nowhere holds no run"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--threads", "0"], 2, "--threads"),
        (["--device", "gpu"], 2, "device"),
    ],
)
def test_wrong_words(run, words, code, sentence):
    said = say("exits", run, *words)
    assert (said.code, "Traceback" in said.err) == (code, False)
    assert sentence in said.err


def test_no_run_no_checkpoint_and_a_newer_one(run, tmp_path):
    assert say("exits", tmp_path / "nowhere").code == 2
    assert not (tmp_path / "nowhere").exists()
    for file in (run / "checkpoints").glob("*/state.json"):
        state = json.loads(file.read_text())
        file.write_text(json.dumps({**state, "format": 99}))
        manifest = file.with_name("manifest.json")
        sums = json.loads(manifest.read_text())
        sums["state.json"] = hashlib.sha256(file.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(sums))
    said = say("exits", run)
    assert said.code == 6
    assert "newer version" in said.err
    shutil.rmtree(run / "checkpoints")
    said = say("exits", run)
    assert said.code == 2
    assert "has no checkpoint yet" in said.err


def test_another_method_of_a_recipe_file_leaves_the_first_ones_behind(run):
    """Else no recipe of one method could be trained by another."""
    (run / "recipe.toml").write_text('method = "kd"\nteacher = "x"\n[options]\ntemperature = 2.0\n')
    said = say("train", *TINY, "--recipe", run / "recipe.toml", "--method", "ce", "--out", "plain")
    assert said.code == 0, said.err
    assert 'teacher = ""' in Path("plain/recipe.toml").read_text()
    said = say("train", *TINY, "--recipe", run / "recipe.toml", "--method", "crd", "--out", "other")
    assert "x" in said.err
