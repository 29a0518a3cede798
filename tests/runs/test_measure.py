"""Exported files measured: the score that onnxruntime gives, and files that cannot be measured."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import selfdistill
from selfdistill.core import ArtifactError, ConfigError, DataError
from selfdistill.data import load
from selfdistill.runs import measure as module
from selfdistill.runs.measure import measure

onnx = pytest.importorskip("onnx")
CARD = "# a card\n\n```python\nprint()\n```\n\n```toml\nmethod = 'ce'\ndata = 'digits'\n```\n"


def write(path: Path, classes=10, shape=(1, 8, 8), **changes) -> Path:
    """A linear classifier of images as `selfdistill export` would write it."""
    side, draw = int(np.prod(shape)), np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(draw.normal(size=(side, classes)).astype("f"), "w")
    make = onnx.helper
    graph = make.make_graph(
        [
            make.make_node("Flatten", ["images"], ["flat"], name="flat"),
            make.make_node("MatMul", ["flat", "w"], ["logits"], name="fc"),
        ],
        "g",
        [make.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", *shape])],
        [make.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", classes])],
        [weight],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10)
    preparation = {"shape": shape, "fit": "stretch", "resize_ratio": 1.0}
    texts = {
        "classes": json.dumps([str(k) for k in range(classes)]),
        "task": "classification",
        "preparation": json.dumps(preparation),
        "predictor": "student",
        "parameters": "640",
        "macs": "641",
    }
    make.set_model_props(model, {k: v for k, v in (texts | changes).items() if v is not None})
    onnx.save(model, path)
    return path


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file beside its card, whose passes take as many seconds as they have images."""

    def times(calls, **_):
        for call in calls.values():
            call()
        return {size: [0.0, float(size), 9e9] for size in calls}

    monkeypatch.setattr(module, "interleaved_times", times)
    (tmp_path / "README.md").write_text(CARD)
    return write(tmp_path / "model.onnx")


def test_it_is_what_onnxruntime_gives(file):
    test = load("digits").test
    (logits,) = onnxruntime.InferenceSession(file).run(
        None, {"images": test.images.numpy().astype("f") / 255}
    )
    measured = selfdistill.measure(file, batch_sizes=[1, 4, 1], num_threads=1)
    assert measured.score == pytest.approx((logits.argmax(1) == test.labels.numpy()).mean())
    assert (measured.split, measured.images, measured.metric) == ("test", 360, "accuracy")
    assert (measured.format, measured.predictor, measured.data) == ("onnx", "student", "digits")
    assert (measured.parameters, measured.macs) == (640, 641)
    assert measured.size == file.stat().st_size
    assert measured.seconds == {1: 1.0, 4: 4.0}
    assert json.loads(measured.to_json())["seconds"] == {"1": 1.0, "4": 4.0}
    assert measure(file.parent).score == measured.score


def test_by_data_that_are_named(file):
    score = measure(file).score
    (file.parent / "README.md").unlink()
    with pytest.raises(ConfigError, match=r"no model card beside .* name the data by --data"):
        measure(file)
    assert measure(file, data="digits").score == score


def test_an_older_file_and_one_in_int8(file):
    write(file, parameters=None, macs=None, quantization="int8")
    measured = measure(file)
    assert (measured.parameters, measured.macs, measured.format) == (None, None, "onnx-int8")


def test_other_classes_and_another_shape(file):
    write(file, classes=7)
    with pytest.raises(DataError, match="tells 7 classes apart and 'digits' has 10"):
        measure(file)
    write(file, shape=(5, 8, 8))
    with pytest.raises(DataError, match=r"are \(1, 8, 8\) and the file takes \(5, 8, 8\)"):
        measure(file)


def test_a_card_that_was_changed(file):
    for text in ("```toml\n=\n```\n", "```toml\ncolor = 'red'\n```\n"):
        (file.parent / "README.md").write_text(text)
        with pytest.raises(ConfigError):
            measure(file)
    (file.parent / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no model card beside"):
        measure(file)


def test_a_card_brings_no_code(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    (file.parent / "evil.py").write_text("raise SystemExit(0)\n")
    card = CARD.replace("data =", "imports = ['evil.py']\ndata =")
    (file.parent / "README.md").write_text(card)
    with pytest.raises(ConfigError, match="never executed"):
        measure(file)


def test_an_embedding_is_scored_by_its_run_alone(file):
    (file.parent / "README.md").write_text(
        "```toml\ntask = 'embedding'\nmethod='feature-kd'\n```\n"
    )
    with pytest.raises(ConfigError, match="take selfdistill evaluate RUN"):
        measure(file)


@pytest.mark.parametrize("name", ["model.txt", "model.safetensors", "model.onnx", "model.pt2", ""])
def test_what_is_no_exported_network(tmp_path, name):
    kind = ArtifactError if name in ("model.onnx", "model.pt2") else ConfigError
    path = tmp_path / name
    if name:
        path.write_bytes(b"nothing")
    with pytest.raises(kind):
        measure(path, data="digits")
    with pytest.raises(ConfigError, match="there is no exported network"):
        measure(tmp_path / "gone")


@pytest.mark.parametrize("options", [{"batch_sizes": [0]}, {"num_threads": -1}])
def test_passes_of_nothing(file, options):
    with pytest.raises(ConfigError, match="are 1 or more"):
        measure(file, **options)
