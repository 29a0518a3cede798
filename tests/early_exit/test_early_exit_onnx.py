"""The ONNX form: real branches, the same answers, and a file that needs neither torch nor us."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from selfdistill.core import ArtifactError, ResourceError
from selfdistill.data import ImageData, InMemoryImages
from selfdistill.early_exit import onnx_export
from selfdistill.early_exit.network import (
    EarlyExitOutput,
    build_early_exit_network,
    collect_exit_decisions,
)
from selfdistill.early_exit.onnx_export import OnnxAgreement, export_early_exit_onnx
from selfdistill.export.normalized_input import NormalizedInput
from selfdistill.recipe.build_method import build_method

IMAGES = 24

ALONE = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("network.onnx")
outputs = [session.run(["logits", "exit"], {"images": x[None]}) for x in np.load("images.npy")]
logits, exits = (np.concatenate(part) for part in zip(*outputs))
np.savez("outputs.npz", logits=logits, exits=exits)
assert "torch" not in sys.modules
try:
    session.run(None, {"images": np.load("images.npy")[:2]})
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture
def data():
    pixels = torch.randint(256, (IMAGES, 3, 16, 16), generator=torch.Generator().manual_seed(5))
    part = InMemoryImages(pixels.to(torch.uint8), torch.arange(IMAGES) % 5)
    scale = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)
    return ImageData("made", part, None, part, list("abcde"), *scale, 0, False, False)


@pytest.fixture
def network(tiny_net, tiny_task, data):
    """Half of the images are sure enough at each exit."""
    method = build_method("exits", tiny_net, tiny_task, "stage1,stage3,stage4", {}).eval()
    confidences = collect_exit_decisions(method, data, data.test).confidence
    return build_early_exit_network(method, np.median(confidences, 0).tolist())


def branches(graph):
    """The nesting of If nodes: [operations outside, [operations of the else branch, …]]."""
    inner = [a.g for n in graph.node if n.op_type == "If" for a in n.attribute]
    kinds = [n.op_type for n in graph.node]
    return kinds, [branches(g) for g in inner]


def weights(graph):
    """The kernels of convolutions that lie in this graph itself."""
    return [i.name for i in graph.initializer if len(i.dims) == 4]


@pytest.mark.slow
def test_the_file_by_itself(network, data, tmp_path):
    agreement = export_early_exit_onnx(network, data, tmp_path / "network.onnx")
    assert (agreement.images, agreement.matched) == (IMAGES, IMAGES)
    assert agreement.difference < 1e-4
    images = data.test.images.numpy().astype(np.float32) / 255
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # onnxruntime tells of what a file should not hold
    assert done.stdout.strip() == "InvalidArgument"  # of two images at once
    expected = NormalizedInput(network, data.mean, data.std)(torch.from_numpy(images))
    outputs = np.load(tmp_path / "outputs.npz")
    assert set(outputs["exits"]) == {0, 1, 2}  # else nothing is tested
    assert np.array_equal(outputs["exits"], expected.exits)
    np.testing.assert_allclose(outputs["logits"], expected.logits, rtol=1e-3, atol=1e-4)

    model = onnx.load(tmp_path / "network.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds, inner = branches(model.graph)
    assert kinds[-1] == "If"  # nothing is computed beside it or behind it
    assert kinds.count("Conv") == 1 + 3  # the first stage and its head
    assert len(weights(model.graph)) == 1 + 3  # a branch has its own
    leave, (deeper, innermost) = sorted(inner, key=lambda branch: len(branch[0]))
    assert leave == (["Identity"], [])
    assert deeper.count("Conv") == 2 + 3
    assert [b[0].count("Conv") for b in innermost] in ([0, 1], [1, 0])
    metadata = {
        entry.key: json.loads(entry.value) for entry in model.metadata_props if entry.key != "data"
    }
    assert metadata["exit_names"] == ["exit1", "exit2", "student"]
    assert metadata["thresholds"] == pytest.approx(network.thresholds)
    assert metadata["classes"] == list("abcde")


class Other(torch.nn.Module):
    """Says something else than the file."""

    names, thresholds = ("student",), ()

    def forward(self, x):
        return EarlyExitOutput(x.flatten(1)[:, :5], torch.full((len(x),), 7))


def test_a_file_that_says_something_else_is_not_kept(data, tmp_path, monkeypatch):
    def written(network, mean, std, shape, path, metadata):
        path.write_text("a draft")

    monkeypatch.setattr(onnx_export, "write_early_exit_onnx", written)
    monkeypatch.setattr(onnx_export, "compare_onnx", lambda *_: OnnxAgreement(1000, 998, 0.0))
    with pytest.raises(ArtifactError, match="2 of 1000 images leave elsewhere"):
        export_early_exit_onnx(Other(), data, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(network, data, tmp_path, monkeypatch):
    def full(*_, metadata):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_export, "write_early_exit_onnx", full)
    with pytest.raises(ResourceError, match="could not be written: No space left on device"):
        export_early_exit_onnx(network, data, tmp_path / "network.onnx")


@pytest.mark.parametrize("size", [(8, 16), (8, 24), (32, 16)])
def test_features_are_laid_out_by_the_images_proportions(tiny_net, tiny_task, size, monkeypatch):
    """Of a wide image a map with as many channels as rows is no map of channels last."""
    monkeypatch.setattr(torch, "cond", lambda which, yes, no, x: yes(*x) if which else no(*x))
    images = torch.rand(4, 3, *size)
    method = build_method("exits", tiny_net, tiny_task, "stage1,stage3,stage4", {}).eval()
    network = build_early_exit_network(method, [0.3, 0.0])
    conditional = onnx_export._ConditionalNetwork(network, size)
    for image in images:
        logits, exit = conditional(image[None])
        want = network(image[None])
        torch.testing.assert_close(logits, want.logits)
        assert torch.equal(exit, want.exits)
