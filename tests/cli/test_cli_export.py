"""`selfdistill export`: from a run to a file that works without it, and every way to be refused."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from command import TINY, say
from filelock import FileLock
from PIL import Image

from selfdistill.cli.export import _count, _fraction
from selfdistill.core import ConfigError
from selfdistill.data import load


def refused(*words, code):
    """The sentence of a refusal, which leaves nothing behind."""
    said = say("export", *words)
    assert "Traceback" not in said.err
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert (len(errors), said.code) == (1, code), said
    return errors[0]


def test_the_card_s_lines_classify_images(run):
    """With numpy and onnxruntime alone, at the end of what a newcomer types."""
    said = say("export", run, "--format", "onnx")
    assert said.code == 0, said.err
    assert said.err == ""
    (place,) = (run / "export").iterdir()
    assert sorted(file.name for file in place.iterdir()) == ["README.md", "model.onnx"]
    assert re.search(r"Verified on 360 test images: .* the same class for all of them", said.out)
    assert str(place / "model.onnx") in said.out
    code = re.search(r"```python\n(.*?)```", (place / "README.md").read_text(), re.DOTALL)[1]
    test = load("digits").test
    for i, image in enumerate(test.images):
        Image.fromarray(image[0].numpy()).save(place / f"{i:03}.png")
    assert code.count('["picture.jpg"]') == 1
    code = code.replace('["picture.jpg"]', '[f"{i:03}.png" for i in range(360)]')
    words = "import sys\nsys.modules['torch'] = sys.modules['selfdistill'] = None\n" + code
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=place, capture_output=True, text=True, check=True
    )
    found = np.array(json.loads(done.stdout.replace("'", '"')), dtype=int)
    right = int((found == test.labels.numpy()).sum())
    said = (place / "README.md").read_text()
    assert f"The file's own accuracy: {right / 360:.2%}." in said
    predictor = place.name.removesuffix("-onnx")
    row = next(r for r in (run / "exits.csv").read_text().splitlines() if r.startswith(predictor))
    assert float(row.split(",")[-1]) == pytest.approx(right / 360)


@pytest.mark.parametrize("format", ["pt2", "safetensors"])
def test_other_formats(run, tmp_path, format):
    words = ("--exit", 1, "--format", format, "--out", tmp_path / "made")
    said = say("export", run, *words)
    assert said.code == 0, said.err
    assert (tmp_path / "made" / f"model.{format}").exists()
    assert "exit1" in said.out
    assert not (run / "export").exists()


def test_a_folder_for_timm_and_the_command_that_uploads_it(tmp_path, monkeypatch, capsys):
    place = tmp_path / "my digits"
    words = (*TINY, "--method", "ce", "--model", "timm/test_resnet", "--out", tmp_path / "run")
    assert say("train", *words).code == 0
    said = say("export", tmp_path / "run", "--format", "timm", "--out", place)
    assert (said.code, said.err) == (0, ""), said
    assert re.search(r"Verified on 360 test images: .* the same class for all of them", said.out)
    assert f"hf upload USER/NAME '{place}'\n" in said.out
    assert str(place / "config.json") in said.out
    code = re.search(r"```python\n(.*?)```", (place / "README.md").read_text(), re.DOTALL)[1]
    assert "selfdistill" not in code
    image = load("digits").test.images[0, 0]
    Image.fromarray(image.numpy()).save(place / "picture.jpg", format="png")
    monkeypatch.chdir(place)
    exec(code, {})
    printed = capsys.readouterr().out
    said = say("predict", tmp_path / "run", "picture.jpg", "--format", "json")
    (picture,) = json.loads(said.out)["pictures"]
    assert printed == f"['{picture['classes'][0]['class']}']\n"


def test_another_size_is_evaluated_anew(run):
    said = say("export", run, "--exit", 2, "--format", "safetensors", "--image-size", 16)
    assert said.code == 0, said.err
    assert "evaluating every exit at 16×16" in said.out
    assert re.search(r"Against the student, .*: [+-][\d.]+ \([+-].* … [+-].*\) \w", said.out)
    page = (run / "export" / "exit2-safetensors-16" / "README.md").read_text()
    assert "(B, 1, 16, 16)" in page
    own = next(r for r in (run / "exits.csv").read_text().splitlines() if r.startswith("exit2"))
    macs = re.search(r"multiply-adds, 16 × 16 \| ([\d,]+)", page)[1].replace(",", "")
    assert int(macs) > 3 * int(own.split(",")[2])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--exit", "7"], "there is no exit '7'"),
        (["--exit", "studnt"], "did you mean 'student'"),
        (["--format", "onx"], "did you mean 'onnx'"),
        (["--exit", 3, "--format", "timm"], "'exit3' (EarlyExit) is none; take --format onnx, pt2"),
        (["--exit", "student", "--format", "timm"], "'student' (ResNet) is none; take --format"),
        (["--min-accuracy", "100%"], "nothing gets 100.0% of the validation images right"),
        (["--max-macs", "1k"], "nothing costs 1,000 multiply-adds or less; the cheapest is exit1"),
        (["--min-accuracy", "good"], "--min-accuracy is a share such as 0.95 or 95%, not 'good'"),
        (["--max-loss", "1"], "--max-loss is an option of --format onnx-int8 alone"),
        (["--threads", "1", "--format", "pt2"], "--threads is an option of --format onnx-int8"),
        (["--format", "onnx-int8", "--float-layers", "few"], "of layers, or auto, not 'few'"),
        (
            ["--format", "onnx-int8", "--max-loss", "100"],
            "--max-loss is from 0 to below 100 points, and this is 100",
        ),
        (["--max-macs", "30 cows"], "--max-macs is a number such as 30M or 1.2G, not '30 cows'"),
    ],
)
def test_wrong_words(first, words, sentence):
    assert sentence in refused(first[1], *words, code=2)
    assert not (first[1] / "export").exists()


def test_no_run(tmp_path):
    assert "holds no run" in refused(tmp_path, code=2)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists(run):
    (run / "export" / "exit1-onnx").mkdir(parents=True)
    assert "exists already" in refused(run, "--exit", 1, code=3)
    (run / "mine").touch()
    assert "exists already" in refused(run, "--exit", 1, "--out", run / "mine", code=3)


def test_a_folder_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").touch()
    words = ("--exit", 1, "--format", "safetensors", "--out", tmp_path / "file" / "made")
    assert "could not be written" in refused(run, *words, code=7)


def test_a_run_that_is_training(run):
    with FileLock(run / ".lock"):
        assert "is being trained now" in refused(run, code=3)


@pytest.mark.parametrize("gone", ["exits.csv", "checkpoints"])
def test_a_run_that_was_killed(run, gone):
    place = run / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert f"selfdistill train --resume {run}" in refused(run, code=2)


@pytest.mark.filterwarnings("default")
def test_a_run_whose_last_checkpoint_is_broken(run):
    newest = max((run / "checkpoints").glob("step-*"))
    (newest / "model.safetensors").write_bytes(b"")
    assert "is not trained to the end" in refused(run, code=2)


def test_a_run_of_a_newer_version(run):
    for place in (run / "checkpoints").glob("step-*"):
        state = json.loads((place / "state.json").read_text())
        (place / "state.json").write_text(json.dumps({**state, "format": 99}))
        (place / "manifest.json").unlink()
        _sign(place)
    assert "made by a newer version" in refused(run, code=6)


def _sign(place):
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in place.iterdir()}
    (place / "manifest.json").write_text(json.dumps(sums))


def test_a_file_that_says_something_else_is_not_kept(run, monkeypatch):
    monkeypatch.setattr("selfdistill.export.verify.TOLERANCE", -1.0)
    said = refused(run, "--exit", 1, "--format", "safetensors", code=6)
    assert "says something else than the network in training (logits differ by" in said
    assert not list((run / "export").iterdir())


@pytest.mark.parametrize("text", ["95%", "95", "0.95", ".95", " 95.0 % "])
def test_shares(text):
    assert _fraction(text) == pytest.approx(0.95)


@pytest.mark.parametrize("text", ["-1", "101", "1e3", "nan", ""])
def test_no_shares(text):
    with pytest.raises(ConfigError):
        _fraction(text)


@pytest.mark.parametrize(
    ("text", "count"), [("30M", 3e7), ("1.2G", 1.2e9), ("5 k", 5e3), ("123456", 123456)]
)
def test_counts(text, count):
    assert _count(text) == pytest.approx(count)
