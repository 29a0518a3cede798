"""The ONNX form: real branches, the same answers, and a file that needs neither torch nor us."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from selfdistill.core import ArtifactError, ResourceError
from selfdistill.data import ImageData
from selfdistill.data.images import InMemoryImages
from selfdistill.export import anytime_onnx
from selfdistill.export.anytime import Answer, make_anytime, watch
from selfdistill.export.anytime_onnx import Agreement, export_anytime
from selfdistill.export.deployed import Deployed
from selfdistill.recipe.making import make_method

IMAGES = 24

ALONE = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("network.onnx")
said = [session.run(["logits", "exit"], {"images": x[None]}) for x in np.load("images.npy")]
logits, exits = (np.concatenate(part) for part in zip(*said))
np.savez("said.npz", logits=logits, exits=exits)
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
    method = make_method("exits", tiny_net, tiny_task, "stage1,stage3,stage4", {}).eval()
    sure = watch(method, data, data.test).confidence
    return make_anytime(method, np.median(sure, 0).tolist())


def branches(graph):
    """The nesting of If nodes: [operations outside, [operations of the else branch, …]]."""
    inner = [a.g for n in graph.node if n.op_type == "If" for a in n.attribute]
    kinds = [n.op_type for n in graph.node]
    return kinds, [branches(g) for g in inner]


def weights(graph):
    """The kernels of convolutions that lie in this graph itself."""
    return [i.name for i in graph.initializer if len(i.dims) == 4]


def test_the_file_by_itself(network, data, tmp_path):
    agreement = export_anytime(network, data, tmp_path / "network.onnx")
    assert (agreement.images, agreement.same) == (IMAGES, IMAGES)
    assert agreement.difference < 1e-4
    images = data.test.images.numpy().astype(np.float32) / 255
    np.save(tmp_path / "images.npy", images)
    words = [sys.executable, "-c", ALONE]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # onnxruntime tells of what a file should not hold
    assert done.stdout.strip() == "InvalidArgument"  # of two images at once
    want = Deployed(network, data.mean, data.std)(torch.from_numpy(images))
    said = np.load(tmp_path / "said.npz")
    assert set(said["exits"]) == {0, 1, 2}  # else nothing is tested
    assert np.array_equal(said["exits"], want.exits)
    np.testing.assert_allclose(said["logits"], want.logits, rtol=1e-3, atol=1e-4)

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
    notes = {
        entry.key: json.loads(entry.value) for entry in model.metadata_props if entry.key != "data"
    }
    assert notes["exit_names"] == ["exit1", "exit2", "student"]
    assert notes["thresholds"] == pytest.approx(network.thresholds)
    assert notes["classes"] == list("abcde")


class Other(torch.nn.Module):
    """Says something else than the file."""

    names, thresholds = ("student",), ()

    def forward(self, x):
        return Answer(x.flatten(1)[:, :5], torch.full((len(x),), 7))


def test_a_file_that_says_something_else_is_not_kept(data, tmp_path, monkeypatch):
    def written(network, mean, std, shape, path, notes):
        path.write_text("a draft")

    monkeypatch.setattr(anytime_onnx, "write_anytime_onnx", written)
    monkeypatch.setattr(anytime_onnx, "compare", lambda *_: Agreement(1000, 998, 0.0))
    with pytest.raises(ArtifactError, match="2 of 1000 images leave elsewhere"):
        export_anytime(Other(), data, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(network, data, tmp_path, monkeypatch):
    def full(*_, notes):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(anytime_onnx, "write_anytime_onnx", full)
    with pytest.raises(ResourceError, match="could not be written: No space left on device"):
        export_anytime(network, data, tmp_path / "network.onnx")
