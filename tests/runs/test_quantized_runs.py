"""Quantization-aware runs: what they leave, how they go on, and what their files say in int8."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from saved_tensors import saved_tensors
from torch import nn

import selfdistill
from selfdistill.core import ConfigError
from selfdistill.core.fake_quantization import fake_quantized
from selfdistill.data.augment import normalize
from selfdistill.engine.callback import Callback
from selfdistill.export import int8_export
from selfdistill.export.extract_predictor import learned_ranges
from selfdistill.export.int8_options import Int8Options
from selfdistill.export.onnx_export import onnx_runner

USUAL = {
    "data": "digits", "model": "cifar/resnet10_w16", "method": "ce", "epochs": 2,
    "max_train_images": 96, "batch_size": 32, "num_workers": 0, "device": "cpu",
}  # fmt: skip


class Stopped(Exception):
    pass


class Watcher(Callback):
    """Stops a run after some steps, and keeps what it is told."""

    def __init__(self, after=10**9):
        self.after, self.summary = after, {}

    def on_start(self, summary):
        self.summary = summary

    def on_step(self, step, total):
        if step > self.after:
            raise Stopped


@pytest.fixture(scope="module")
def float_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("float") / "run"
    keys = USUAL | {"max_train_images": 600, "epochs": 4}
    return selfdistill.train(**keys, out=out, quiet=True)


@pytest.fixture(scope="module")
def aware(float_run, tmp_path_factory):
    """By its own float self, as the guide has it."""
    out, watcher = tmp_path_factory.mktemp("aware") / "run", Watcher()
    keys = USUAL | {"max_train_images": 300, "epochs": 1, "method": "kd", "lr": 0.005}
    given = {"teacher": str(float_run.path), "weights": str(float_run.path)}
    run = selfdistill.train(**keys, **given, quantize="aware", out=out, callback=watcher)
    return run, watcher.summary


def test_a_network_learns_int8_from_its_own_float_self(aware):
    run, summary = aware
    assert "13 layers in simulated int8, 100% of the weights" in summary["quantize"]
    assert run.exits[-1].test_score > 0.8
    assert not fake_quantized(run.method.teacher)
    ranges = learned_ranges(run.method, "student")
    assert len(ranges) == 13
    assert all(low <= 0 < high for low, high in ranges.values())
    assert "int8 simulated" in (run.path / "report.html").read_text()


def test_a_loaded_run_computes_as_the_trained_one(aware):
    run, _ = aware
    loaded = selfdistill.load(run.path)
    assert len(fake_quantized(loaded.network)) == 13
    assert loaded.evaluate("test").exits[-1].test_score == run.exits[-1].test_score


OPTIONS = {
    "muse": {"method": "muse", "batchnorm": "reestimate"},
    "frozen": {"freeze_until": "layer1", "ema_decay": 0.5, "weights": True},
    "accumulated": {"method": "frskd", "accumulation_steps": 2},
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "frozen" else pytest.mark.slow) for name in OPTIONS],
)
def test_a_resume_is_exact(tmp_path, float_run, name):
    keys = {**USUAL, "save_every_steps": 1, "quantize": "aware", **OPTIONS[name]}
    if keys.get("weights"):
        keys["weights"] = str(float_run.path)
    run = selfdistill.train(**keys, out=tmp_path / "straight", quiet=True)
    with pytest.raises(Stopped):
        selfdistill.train(**keys, out=tmp_path / "stopped", callback=Watcher(2))
    selfdistill.train(out=tmp_path / "stopped", resume=True, quiet=True)
    straight, resumed = saved_tensors(run.path), saved_tensors(tmp_path / "stopped")
    assert straight.keys() == resumed.keys()
    for key, tensor in straight.items():
        assert torch.equal(tensor, resumed[key]), key
    for key, tensor in straight.items():
        if key.endswith("input_range"):  # of frozen layers and averages, too
            assert tensor[1] > tensor[0], key


def outputs(run, name, images):
    inputs = normalize(images, run.data.mean, run.data.std)
    with torch.no_grad():
        return run.method.eval().predict(inputs)[name]


def feature_scales(file):
    """Of a file in int8, those of tensors that have one scale."""
    tensors = onnx.load(file).graph.initializer
    single = [t for t in tensors if t.name.endswith("_scale") and not t.dims]
    return [float(numpy_helper.to_array(tensor)) for tensor in single]


@pytest.mark.slow
def test_the_int8_file_says_what_the_network_in_simulated_int8_says(aware, monkeypatch, tmp_path):
    run, _ = aware
    monkeypatch.setattr(int8_export, "_require_speed", lambda comparison: None)
    monkeypatch.setattr(int8_export, "_SECONDS", 0.01)
    options = Int8Options(max_loss=0.05)
    exported = run.export(exit="student", format="onnx-int8", int8=options, out=tmp_path / "int8")
    images = run.data.test.images[:360]
    simulated = outputs(run, "student", images)
    actual = onnx_runner(exported.file)(images.float() / 255)
    assert (actual.argmax(1) == simulated.argmax(1)).float().mean() > 0.98
    assert (actual - simulated).norm() / simulated.norm() < 0.03
    scales = feature_scales(exported.file)
    for name, (low, high) in learned_ranges(run.method, "student").items():
        assert np.isclose(scales, (high - low) / 255, rtol=1e-5).any(), name
    card = (exported.path / "README.md").read_text()
    assert "with int8 simulated in the layers" in card
    assert "has the ranges of the training" in card


def test_a_float_file_has_the_plain_weights(aware, tmp_path):
    run, _ = aware
    exported = run.export(exit="student", format="safetensors", out=tmp_path / "weights")
    state = load_file(exported.file)
    own = run.network.state_dict()
    assert own.keys() - state.keys() == {n for n in own if n.endswith("input_range")}
    assert all(torch.equal(tensor, own[name].cpu()) for name, tensor in state.items())
    assert abs(exported.verification.score - run.exits[-1].test_score) < 0.05


@pytest.mark.slow
def test_the_file_of_an_exit_has_the_ranges_of_its_layers(tmp_path, monkeypatch):
    monkeypatch.setattr(int8_export, "_require_speed", lambda comparison: None)
    monkeypatch.setattr(int8_export, "_SECONDS", 0.01)
    keys = USUAL | {"method": "exits", "quantize": "aware"}
    run = selfdistill.train(**keys, out=tmp_path / "run", quiet=True)
    exported = run.export(exit="exit2", format="onnx-int8", int8=Int8Options(max_loss=0.5))
    scales, ranges = feature_scales(exported.file), learned_ranges(run.method, "exit2")
    assert len(ranges) == exported.int8.layers
    for name, (low, high) in ranges.items():
        assert np.isclose(scales, (high - low) / 255, rtol=1e-5).any(), name


@pytest.mark.slow
def test_it_can_teach_and_be_begun_from(aware, tmp_path):
    run, _ = aware
    keys = USUAL | {"epochs": 1, "teacher": str(run.path), "weights": str(run.path), "lr": 1e-6}
    other = selfdistill.train(**keys | {"method": "kd"}, out=tmp_path / "float", quiet=True)
    assert not fake_quantized(other.network)
    teacher = other.method.teacher
    assert len(fake_quantized(teacher)) == 13
    x = normalize(run.data.test.images[:8], run.data.mean, run.data.std)
    assert torch.equal(teacher(x), outputs(run, "student", run.data.test.images[:8]))


class Layerless(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.weight = nn.Parameter(torch.ones(64, 10))

    def forward(self, x):
        return self.norm(x).flatten(1) @ self.weight


def test_a_network_without_layers_is_refused(tmp_path):
    keys = USUAL | {"model": Layerless(), "quantize": "aware"}
    with pytest.raises(ConfigError, match=r"Layerless has no layer that int8 can be simulated in"):
        selfdistill.train(**keys, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["int8", "Aware", True, 8])
def test_other_words_are_refused(tmp_path, value):
    with pytest.raises(ConfigError, match="quantize"):
        selfdistill.train(**USUAL, quantize=value, out=tmp_path / "run", quiet=True)
