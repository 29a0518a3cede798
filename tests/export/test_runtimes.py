"""Files for OpenVINO and ExecuTorch: what their own runtimes say of them."""

import os
import re
import subprocess
import sys
from ast import literal_eval
from importlib.util import find_spec

import pytest
import torch
from dense_runs import SIDE
from dense_runs import make_run as make_dense_run
from exported_runs import make_run
from PIL import Image
from torch import nn

import selfdistill
from selfdistill.core import ArtifactError, ConfigError
from selfdistill.data.augment import normalize
from selfdistill.export.formats import load_format
from selfdistill.export.package import export_run

pytestmark = pytest.mark.slow

FILES = {"openvino": ["model.bin", "model.xml"], "executorch": ["model.pte"]}
BLOCKED = {"openvino": ["selfdistill", "torch"], "executorch": ["selfdistill"]}
both = pytest.mark.parametrize("format", list(FILES))


@pytest.fixture(autouse=True)
def installed(request):
    names = [n for n in FILES if n in request.node.name]
    for name in names or FILES:
        if find_spec(name) is None:  # importorskip would import it, which OpenVINO reports
            pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    options = {"epochs": 1, "max_train_images": 64, "batch_size": 32, "method": "exits"}
    folder = tmp_path_factory.mktemp("runtimes") / "run"
    return selfdistill.train(model="cifar/resnet8", out=folder, **options)


@pytest.fixture(scope="module")
def exported(run):
    """{format: result}, each written once."""
    results = {}

    def export(format):
        if format not in results:
            results[format] = run.export(exit=2, format=format)
        return results[format]

    return export


@pytest.fixture(scope="module")
def expected(run):
    """Logits of the exit for the test images."""
    images = normalize(run.data.test.images, run.data.mean, run.data.std)
    return run.method.cpu().eval().predict(images)["exit2"].detach()


def output_of_card(folder, pixels, blocked):
    """What the card's lines print of some pictures, without some packages."""
    for i, image in enumerate(pixels):
        array = image.permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(array).save(folder / f"{i}.png")
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    code = code.replace('["picture.jpg"]', f'[f"{{i}}.png" for i in range({len(pixels)})]')
    without = "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys\n{without}{code}"],
        cwd=folder,
        env={**os.environ, "CI": "true", "PYTHONPATH": ""},  # where OpenVINO reports nothing
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [literal_eval(line) for line in ran.stdout.splitlines()]


@both
def test_the_folder(exported, run, expected, format):
    done = exported(format)
    assert sorted(f.name for f in done.path.iterdir()) == ["README.md", *FILES[format]]
    assert (done.verification.split, done.verification.images) == ("test", 360)
    assert "the same class for all of them" in done.verification.summary
    accuracy = (expected.argmax(1) == run.data.test.labels).double().mean().item()
    assert done.verification.score == pytest.approx(accuracy)
    page = (done.path / "README.md").read_text()
    assert f"was run by {format} " in page
    assert ("B = 1." in page) == (format == "executorch")


@both
def test_another_library_prints_the_classes(exported, run, expected, format):
    pixels = run.data.test.images[:12]
    done = exported(format)
    (printed,) = output_of_card(done.path, pixels, BLOCKED[format])
    assert printed == [run.data.classes[k] for k in expected[:12].argmax(1)]


@both
@pytest.mark.parametrize("count", [1, 5])
def test_any_number_of_images(exported, run, expected, format, count):
    opened = load_format(format).open(exported(format).file, num_threads=1)
    actual = opened.run(run.data.test.images[:count].float() / 255)
    torch.testing.assert_close(actual, expected[:count], rtol=1e-4, atol=1e-4)
    assert opened.texts["predictor"] == "exit2"


@both
def test_it_is_measured(exported, format):
    done = exported(format)
    measured = selfdistill.measure(done.path, batch_sizes=[1, 2], num_threads=1)
    assert measured.score == pytest.approx(done.verification.score)
    assert (measured.format, measured.predictor) == (format, "exit2")
    assert measured.macs == done.exit_score.macs
    assert measured.size == sum((done.path / name).stat().st_size for name in FILES[format])
    assert all(seconds > 0 for seconds in measured.seconds.values())


@both
def test_it_predicts_as_its_run(exported, run, tmp_path, format, capfd):
    for i in range(3):
        Image.fromarray(run.data.test.images[i, 0].numpy()).save(tmp_path / f"{i}.png")
    by_file = selfdistill.predict(exported(format).file, tmp_path)
    assert capfd.readouterr().err == ""
    for one, other in zip(run.predict(tmp_path, exit=2), by_file, strict=True):
        assert [row.name for row in one.classes] == [row.name for row in other.classes]
        assert one.classes[0].score == pytest.approx(other.classes[0].score, abs=1e-4)


@both
@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_damaged_file(exported, tmp_path, format, keep, capfd):
    done = exported(format)
    for name in FILES[format]:
        content = (done.path / name).read_bytes()
        count = keep if isinstance(keep, int) else int(keep * len(content))
        (tmp_path / name).write_bytes(content[:count])
    with pytest.raises(ArtifactError, match=f"cannot be read as {format}"):
        selfdistill.measure(tmp_path, data="digits")
    assert capfd.readouterr().err == ""


def test_openvino_without_its_weights(exported, tmp_path):
    (tmp_path / "model.xml").write_bytes(exported("openvino").file.read_bytes())
    with pytest.raises(ArtifactError, match=r"no weights beside it; put model\.bin there"):
        selfdistill.measure(tmp_path)


def test_openvino_reports_nothing(exported):
    load_format("openvino").open(exported("openvino").file)
    assert "openvino_telemetry" not in sys.modules


@both
def test_masks(tmp_path, format):
    run, data = make_dense_run(tmp_path / "run", "segmentation")
    run.method.to(memory_format=torch.channels_last)
    done = export_run(run, data, exit=1, format=format)
    assert "the same class for all pixels" in done.verification.summary
    scores = run.method.predict(normalize(data.test.images, data.mean, data.std))["exit1"]
    full = nn.functional.interpolate(scores, size=(SIDE, SIDE), mode="bilinear")
    opened = load_format(format).open(done.file)
    actual = opened.run(data.test.images.float() / 255)
    torch.testing.assert_close(actual, full.detach(), rtol=1e-4, atol=1e-4)


def test_boxes_of_openvino(tmp_path):
    run, data = make_dense_run(tmp_path / "run", "detection")
    done = export_run(run, data, exit="student", format="openvino")
    assert re.match(r"all [\d,]+ boxes are the same", done.verification.summary)
    for count in (1, 4):
        boxes, scores, labels = (
            load_format("openvino").open(done.file).run(torch.rand(count, 3, SIDE, SIDE))
        )
        assert (boxes.shape, scores.shape, labels.shape) == (
            (count, 300, 4), (count, 300), (count, 300),
        )  # fmt: skip
    printed = output_of_card(done.path, data.test.images[:2], BLOCKED["openvino"])
    inputs = normalize(data.test.images[:2], data.mean, data.std)
    detections = run.method.predict(inputs)["student"].detections((SIDE, SIDE))
    for lines, found in zip(printed, detections, strict=True):
        assert [name for name, _ in lines] == [
            data.classes[k] for k in found.labels[found.scores >= 0.25]
        ]


def test_executorch_has_no_boxes(tmp_path):
    run, data = make_dense_run(tmp_path / "run", "detection")
    with pytest.raises(ConfigError, match=r"has no loops.*take --format onnx, openvino or pt2"):
        export_run(run, data, exit="student", format="executorch")
    assert not (run.path / "export").exists()


class Inverse(nn.Module):
    def forward(self, x):
        return torch.linalg.eigh(x[:, :, :5, :5]).eigenvalues.mean(1)


@both
def test_what_the_runtime_has_not(tiny_net, tiny_task, tmp_path, format, capfd):
    network = nn.Sequential(tiny_net.stage1, Inverse())
    run, data = make_run(network, tiny_task, tmp_path / "run", method="ce", taps="auto")
    with pytest.raises(ConfigError, match=r"--format (pt2|onnx and pt2) keeps? its graph"):
        export_run(run, data, exit="student", format=format)
    assert not list((run.path / "export").iterdir())
    assert capfd.readouterr().err == ""
