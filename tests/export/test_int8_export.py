"""Int8 beside float32: what it loses, what it takes, and when it is refused."""

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx_graphs import (
    classifier_nodes,
    classifier_weights,
    digits_metadata,
    make_model,
    save_model,
)
from torch import nn

from selfdistill.core import ConfigError
from selfdistill.data import load
from selfdistill.export import int8_export
from selfdistill.export.int8_export import check_calibratable, write_int8
from selfdistill.export.int8_options import Int8Options
from selfdistill.export.onnx_export import onnx_runner
from selfdistill.export.onnx_int8 import Int8Quantizer
from selfdistill.export.package import task_for
from selfdistill.export.verify import ExportVerification, file_score


class Classifier(nn.Module):
    """Of digits, by two convolutions."""

    scale = 2.0

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.fc = nn.Linear(256, 10)

    def forward(self, images):
        x = self.second(self.first(images * self.scale).relu()).relu()
        return self.fc(nn.functional.max_pool2d(x, 2).flatten(1))


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def network(digits):
    """Trained for two seconds."""
    torch.manual_seed(0)
    network, generator = Classifier(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(150):
        index = torch.randint(len(digits.train), (64,), generator=generator)
        logits = network(digits.train.fetch(index).float() / 255)
        loss = nn.functional.cross_entropy(logits, digits.train.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def with_outlier(network):
    """The network with a channel of large values that nothing reads.

    The one scale of all channels of that feature, made for this one, leaves the others no digits.
    """
    changed = Classifier()
    changed.load_state_dict(network.state_dict())
    with torch.no_grad():
        changed.first.weight[0], changed.first.bias[0] = 0.0, 3000.0
        changed.second.weight[:, 0] = 0.0
    return changed


@pytest.fixture
def export(digits, tmp_path, monkeypatch):
    """A function that writes a network in int8, in which int8 takes so much of float32's time."""

    def write(network, ratio=0.5, **options):
        def times(calls, **_):
            for call in calls.values():
                call()
            return {"model.onnx": [2 * ratio] * 3, "float32.onnx": [2.0] * 3}

        monkeypatch.setattr(int8_export, "interleaved_times", times)
        weights = classifier_weights(network)
        model = make_model(classifier_nodes(), weights, (1, 8, 8), **digits_metadata())
        full, file = save_model(model, tmp_path / "float32.onnx"), tmp_path / "model.onnx"
        task = task_for(digits)
        score = file_score(onnx_runner(full), digits.test, digits, task)
        verification = ExportVerification("test", len(digits.test), True, "", score)
        comparison = write_int8(full, file, verification, digits, task, Int8Options(**options))
        return SimpleNamespace(file=file, full=full, int8=comparison)

    return write


def accuracy(file, digits):
    """By numpy and onnxruntime alone."""
    images = digits.test.images.numpy().astype(np.float32) / 255
    (logits,) = onnxruntime.InferenceSession(file).run(None, {"images": images})
    return float((logits.argmax(1) == digits.test.labels.numpy()).mean())


def test_a_trained_network_keeps_its_accuracy_in_a_third_of_the_bytes(export, network, digits):
    written = export(network, batch_size=3, num_threads=1)
    int8 = written.int8
    assert (int8.split, int8.images, int8.metric) == ("test", 360, "accuracy")
    assert int8.score == pytest.approx(accuracy(written.file, digits))
    assert int8.float_score == pytest.approx(accuracy(written.full, digits))
    assert int8.float_score > 0.9
    assert abs(int8.loss) <= 0.01
    assert int8.size == written.file.stat().st_size
    assert int8.float_size == written.full.stat().st_size
    assert int8.size < int8.float_size
    assert (int8.seconds, int8.float_seconds, int8.ratio) == (1.0, 2.0, 0.5)
    assert (int8.layers, int8.float_layers, int8.batch_size) == (3, [], 3)
    assert int8.calibration_images == min(256, len(digits.val))
    assert int8.machine.endswith("1 thread")


def test_the_file_tells_what_the_float32_file_told(export, network):
    texts = [
        onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
        for file in (export(network).file, export(network).full)
    ]
    assert texts[0]["quantization"] == "int8"
    assert texts[0]["float_layers"] == "[]"
    assert texts[0].items() >= texts[1].items()


def test_slower_is_refused_with_both_times(export, network):
    with pytest.raises(ConfigError, match=r"takes 1\.25 of its time \(2\.5e\+03 ms and 2e\+03 ms"):
        export(network, ratio=1.25)
    assert export(network, ratio=1.0).int8.ratio == 1


def test_a_loss_is_refused_with_the_layers_that_lose_most(export, network, tmp_path):
    changed = with_outlier(network)
    with pytest.raises(ConfigError, match=r"int8 reaches .* where float32 reaches .*") as caught:
        export(changed, max_loss=0.0)
    sentence = str(caught.value)
    assert "--max-loss allows 0 points, and nothing was written" in sentence
    # `second` is what reads the feature that the outlier spoils
    assert "The outputs move most by second (" in sentence
    assert "--float-layers auto" in sentence


@pytest.mark.parametrize("float_layers", ["auto", 1])
def test_layers_that_lose_most_stay_in_float32(export, network, digits, float_layers):
    written = export(with_outlier(network), max_loss=0.01, float_layers=float_layers)
    assert written.int8.float_layers == ["second"]
    assert written.int8.loss <= 0.01
    assert written.int8.score == pytest.approx(accuracy(written.file, digits))


def test_auto_leaves_none_where_nothing_is_lost(export, network):
    assert export(network, float_layers="auto").int8.float_layers == []


def test_more_layers_than_there_are(export, network):
    with pytest.raises(ConfigError, match="and the network has 3; give --float-layers at most 2"):
        export(network, float_layers=3)


def test_without_validation_images_there_is_nothing_to_calibrate_by(digits):
    check_calibratable(digits)
    with pytest.raises(ConfigError, match=r"held none out; train with --val-fraction"):
        check_calibratable(SimpleNamespace(val=None))


def test_ranges_from_training_take_the_place_of_calibrated_ones(network, tmp_path):
    model = make_model(classifier_nodes(), classifier_weights(network), (1, 8, 8))
    file = save_model(model, tmp_path / "float32.onnx")
    batches = [np.random.default_rng(0).random((4, 1, 8, 8), np.float32)]
    ranges = {"trunk.network.first": (-1.0, 4.1), "fc": (0.0, 51.0), "absent": (0.0, 1.0)}
    scales = []
    for given in (None, ranges):
        quantizer = Int8Quantizer(file, batches, given)
        quantizer.write(tmp_path / "model.onnx")
        graph = onnx.load(tmp_path / "model.onnx").graph
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        scales.append(
            {n: float(a) for n, a in tensors.items() if n.endswith("_scale") and not a.ndim}
        )
        assert len(quantizer.layer_errors()) == 3
    calibrated, learned = scales
    changed = {learned[n] for n in learned if learned[n] != calibrated[n]}
    assert changed >= {np.float32(5.1 / 255), np.float32(51 / 255)}
    assert learned.keys() == calibrated.keys()
    assert learned != calibrated
    assert [n for n in learned if learned[n] == calibrated[n]]  # the second layer's


def test_an_error_of_one_layer_alone(network, tmp_path):
    """It is that of a file in which all other layers are in float32."""
    model = make_model(classifier_nodes(), classifier_weights(network), (1, 8, 8))
    full = save_model(model, tmp_path / "full.onnx")
    images = np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32)
    quantizer = Int8Quantizer(full, [images])
    expected = onnx_runner(full)(torch.from_numpy(images))
    for k, error in enumerate(quantizer.layer_errors(8)):
        others = set(range(3)) - {k}
        quantizer.write(tmp_path / "one.onnx", others)
        actual = onnx_runner(tmp_path / "one.onnx")(torch.from_numpy(images))
        distance = float((actual - expected).norm() / expected.norm())
        # there what the layer gives is rounded, too
        assert 0 < error < 0.1
        assert distance == pytest.approx(error, abs=0.02)


def test_what_cannot_be_quantized(tmp_path):
    nodes = [("Relu", "relu", ["images"], "logits", {})]
    file = save_model(make_model(nodes, {}, (4,)), tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="it has no convolution and no matrix product"):
        Int8Quantizer(file, [np.zeros((1, 4), np.float32)])
