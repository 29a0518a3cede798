"""`selfdistill anytime`: the table, its csv, the ONNX file, and what is asked wrongly."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from command import TINY, say


def table(run: Path) -> list[dict[str, str]]:
    with (run / "anytime.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_table(run):
    said = say("anytime", run, "--max-loss", "0,5", "--threads", 1)
    assert said.code == 0, said.err
    assert re.search(r"^student alone .*100 %", said.out, re.M)
    assert re.search(r"^5 points ", said.out, re.M)
    assert re.search(r"; .+, 1 thread\.", " ".join(said.out.split()))
    student, none, some = table(run)
    assert [student["max_loss"], none["max_loss"], some["max_loss"]] == ["", "0.0", "0.05"]
    assert student["macs_ratio"] == "1.0"
    assert float(some["macs_ratio"]) <= float(none["macs_ratio"]) <= 1
    assert float(some["val_accuracy"]) >= float(student["val_accuracy"]) - 0.05 - 1e-9
    shares = [float(some[f"share_{name}"]) for name in ("exit1", "exit2", "exit3", "student")]
    assert sum(shares) == pytest.approx(1)
    assert all(float(row["latency_ms"]) > 0 for row in (student, none, some))


def test_a_threshold_that_no_exit_reaches(run):
    said = say("anytime", run, "--threshold", "1,1,none", "--threads", 1)
    assert said.code == 0
    assert said.err.startswith("warning: no exit is as sure of any image as its threshold asks")
    assert "the surest is exit" in said.err
    _, given = table(run)
    assert [given[f"threshold_exit{k}"] for k in (1, 2, 3)] == ["1.0", "1.0", ""]
    assert given["share_student"] == "1.0"
    assert float(given["macs_ratio"]) > 1  # the heads are paid


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--threshold", "0"], "a threshold is a confidence, above 0 and at most 1, not 0"),
        (["--threshold", "0.9,0.8"], "there are 3 exits (exit1, exit2, exit3) and 2 thresholds"),
        (["--threshold", "high"], "--threshold takes numbers such as 0.9 or 0.9,0.8,none"),
        (["--threshold", "none"], "no image leaves early"),
        (["--max-loss", "a,b"], "--max-loss takes numbers such as 0,0.5,1 (in points), not 'a,b'"),
        (["--max-loss", "-1"], "--max-loss is from 0 to below 100 points, and this is -1"),
        (["--onnx", "a.onnx"], "an ONNX file holds one choice of thresholds"),
        (["--onnx", "no/a.onnx", "--max-loss", "1"], "there is no folder no to write a.onnx into"),
        (["--device", "gpu"], "--device"),
    ],
)
def test_wrong_words(first, words, sentence):
    said = say("anytime", first[1], *words)
    assert said.code == 2
    assert said.err.startswith("error: ")
    assert sentence in said.err or sentence == "--device"
    assert not (first[1] / "anytime.csv").exists()


def test_an_onnx_file_is_not_overwritten(first):
    Path("kept.onnx").write_text("mine")
    said = say("anytime", first[1], "--max-loss", 1, "--onnx", "kept.onnx")
    assert said.code == 3
    assert "kept.onnx exists already" in said.err
    assert Path("kept.onnx").read_text() == "mine"


def test_a_run_without_exits(tmp_path):
    say("train", *TINY, "--method", "ce", "--out", tmp_path / "ce")
    said = say("anytime", tmp_path / "ce")
    assert said.code == 2
    assert said.err.startswith("error: there are no exits for an image to leave at;")


def test_a_run_that_is_not_there_or_not_done(run, tmp_path):
    assert say("anytime", tmp_path).code == 2
    (run / "exits.csv").unlink()
    assert "is not trained to the end" in say("anytime", run).err
    shutil.rmtree(run / "checkpoints")
    assert say("anytime", run).code == 2


@pytest.mark.slow
def test_writes_an_onnx_file(run):
    said = say("anytime", run, "--threshold", "0.2", "--threads", 1, "--onnx", "network.onnx")
    assert said.code == 0, said.err
    assert "the same exit and class for all of them" in said.out
    assert said.out.rstrip().endswith("network.onnx")
    assert Path("network.onnx").stat().st_size > 10_000
