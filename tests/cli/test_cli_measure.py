"""`selfdistill measure`: what it refuses, and a file in int8 from export to measurement."""

import json
import re

import numpy as np
import onnxruntime
import pytest
from command import say

from selfdistill.data import load
from selfdistill.export import int8_export


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["gone.onnx"], "there is no exported network gone.onnx"),
        (["."], "holds no exported network; selfdistill export RUN writes one"),
        ([".", "--format", "jsn"], "did you mean 'json'"),
    ],
)
def test_wrong_words(words, sentence):
    said = say("measure", *words)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
    assert "Traceback" not in said.err


def faster(calls, **_):
    """Times of int8 and of float32 that no machine disturbs."""
    return {name: [0.001 * (k + 1)] * 3 for k, name in enumerate(calls)}


def test_from_export_to_measurement(run, monkeypatch):
    monkeypatch.setattr(int8_export, "interleaved_times", faster)
    words = ("--exit", "student", "--format", "onnx-int8", "--max-loss", 5, "--threads", 1)
    said = say("export", run, *words)
    assert said.code == 0, said.err
    assert said.err == ""
    folder = run / "export" / "student-onnx-int8"
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "model.onnx"]
    assert "The float32 file was verified on 360 test images" in said.out
    assert "Int8 takes 0.50 of float32's time" in said.out

    test = load("digits").test
    images = {"images": test.images.numpy().astype(np.float32) / 255}
    (logits,) = onnxruntime.InferenceSession(folder / "model.onnx").run(None, images)
    accuracy = float((logits.argmax(1) == test.labels.numpy()).mean())
    page = (folder / "README.md").read_text()
    row = re.search(r"\| accuracy, 360 test images \| ([\d.]+)% \| ([\d.]+)% \|", page)
    assert float(row[2]) == pytest.approx(100 * accuracy, abs=0.006)
    assert abs(float(row[1]) - float(row[2])) <= 5
    assert "| latency, 1 image | 2 ms | 1 ms | 0.50 |" in page
    sizes = re.search(r"\| bytes \| ([\d,]+) \| ([\d,]+) \|", page)
    full, int8 = (int(text.replace(",", "")) for text in sizes.groups())
    assert int8 == (folder / "model.onnx").stat().st_size < 0.6 * full
    assert f"The file's own accuracy: {accuracy:.2%}." in page

    said = say("measure", folder, "--format", "json", "--batch-size", 2, "--threads", 1)
    assert said.code == 0, said.err
    measured = json.loads(said.out)
    assert measured["score"] == pytest.approx(accuracy)
    assert (measured["format"], measured["size"]) == ("onnx-int8", int8)
    assert list(measured["seconds"]) == ["2"]
    said = say("measure", folder, "--batch-size", 1)
    assert "student (onnx-int8)" in said.out
    assert f"{100 * accuracy:.1f} %" in said.out
    assert "Scored on 360 test images of digits" in said.out


def test_a_loss_leaves_nothing_behind(run, monkeypatch):
    """A bound that is below what was lost; the file is as good as float32's, or it is not."""
    monkeypatch.setattr(int8_export, "interleaved_times", faster)
    monkeypatch.setattr(int8_export, "file_score", lambda *_: 0.0)
    said = say("export", run, "--exit", 1, "--format", "onnx-int8", "--max-loss", 0)
    assert said.code == 2
    assert "int8 reaches 0.00% accuracy on the 360 test images" in said.err
    assert not list((run / "export").iterdir())


def test_slower_leaves_nothing_behind(run, monkeypatch):
    def slower(calls, **_):
        return {name: [0.002 / (k + 1)] * 3 for k, name in enumerate(calls)}

    monkeypatch.setattr(int8_export, "interleaved_times", slower)
    said = say("export", run, "--exit", 1, "--format", "onnx-int8", "--max-loss", 99)
    assert said.code == 2
    assert "takes 2.00 of its time" in said.err
    assert "a file that is slower is not kept" in said.err
    assert not list((run / "export").iterdir())
