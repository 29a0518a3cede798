"""Segmenters and detectors as files: the same masks and boxes, and cards whose lines run."""

import re
import subprocess
import sys
from ast import literal_eval
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from dense_runs import SIDE, make_run
from PIL import Image
from torch import nn
from true_scores import true_scores

from selfdistill.core import ConfigError
from selfdistill.costs.macs import network_cost
from selfdistill.data.augment import normalize
from selfdistill.export import int8_export
from selfdistill.export.box_agreement import BoxAgreement, ExportedDetections
from selfdistill.export.int8_options import Int8Options
from selfdistill.export.onnx_export import onnx_runner
from selfdistill.export.package import export_run, task_for
from selfdistill.export.usage_snippet import SCORE_THRESHOLD
from selfdistill.models import build
from selfdistill.modules.detector_output import Detections
from selfdistill.recipe.data_check import describe_data
from selfdistill.runs.anytime import early_exit_network


def output_of_card(done, pixels):
    """What the card's lines print of some pictures, with numpy and onnxruntime alone."""
    for i, image in enumerate(pixels):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(done.path / f"{i}.png")
    page = (done.path / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    code = code.replace('["picture.jpg"]', f'[f"{{i}}.png" for i in range({len(pixels)})]')
    code_alone = "import sys\nsys.modules['torch'] = sys.modules['selfdistill'] = None\n" + code
    ran = subprocess.run(
        [sys.executable, "-c", code_alone],
        cwd=done.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    return page, [literal_eval(line) for line in ran.stdout.splitlines()]


@pytest.mark.slow
def test_masks_by_the_card_s_lines(tmp_path):
    run, data = make_run(tmp_path / "run", "segmentation")
    done = export_run(run, data, exit=1)
    assert "the same class for all pixels" in done.verification.summary
    page, (printed,) = output_of_card(done, data.test.images)
    assert "pipeline_tag: image-segmentation" in page
    assert "one logit a class and pixel, (B, 3, 32, 32)" in page
    assert "## mIoU" in page
    scores = run.method.predict(normalize(data.test.images, data.mean, data.std))["exit1"]
    full = nn.functional.interpolate(scores, size=(SIDE, SIDE), mode="bilinear").argmax(1)
    for counts, mask in zip(printed, full, strict=True):
        assert counts == {n: int((mask == k).sum()) for k, n in enumerate(data.classes)}
    metric = task_for(data).metric()
    metric.update(scores, data.test.targets.fetch(torch.arange(9)))
    assert done.verification.score == pytest.approx(float(metric.compute()["miou"]))


@pytest.mark.slow
def test_boxes_by_the_card_s_lines(tmp_path):
    run, data = make_run(tmp_path / "run", "detection")
    done = export_run(run, data, exit="student")
    assert re.match(r"all [\d,]+ boxes are the same", done.verification.summary)
    page, printed = output_of_card(done, data.test.images)
    assert "pipeline_tag: object-detection" in page
    assert "the 300 boxes of each image with the highest scores" in page
    inputs = normalize(data.test.images, data.mean, data.std)
    detections = run.method.predict(inputs)["student"].detections((SIDE, SIDE))
    assert len(printed) == len(detections)
    assert sum(map(len, printed)) > 20  # else nothing is tested
    for lines, boxes in zip(printed, detections, strict=True):
        kept = boxes.scores >= SCORE_THRESHOLD
        assert [name for name, _ in lines] == [data.classes[k] for k in boxes.labels[kept]]
        expected = boxes.boxes[kept].detach().numpy()
        np.testing.assert_allclose(np.array([box for _, box in lines]), expected, atol=1e-3)
    for count in (1, 4):  # any number of images
        boxes, scores, labels = onnx_runner(done.file)(torch.rand(count, 3, SIDE, SIDE))
        assert (boxes.shape, scores.shape, labels.shape) == (
            (count, 300, 4), (count, 300), (count, 300),
        )  # fmt: skip


@pytest.mark.parametrize("format", [pytest.param("pt2", marks=pytest.mark.slow), "safetensors"])
def test_an_exit_of_a_detector(tmp_path, format):
    run, data = make_run(tmp_path / "run", "detection")
    done = export_run(run, data, exit=1, format=format)
    assert done.verification.holds
    assert done.verification.images == 9
    metric = task_for(data).metric()
    inputs = normalize(data.test.images, data.mean, data.std)
    metric.update(run.method.predict(inputs)["exit1"], data.test.targets.fetch(torch.arange(9)))
    assert done.verification.score == pytest.approx(float(metric.compute()["map"]), abs=1e-4)


def tensors(boxes, scores, labels):
    return torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels)


class Seen:
    def __init__(self, *parts):
        self.parts = parts

    def detections(self, size):
        return [Detections(*self.parts)]


BOXES = [[0.0, 0, 8, 8], [4, 4, 12, 12], [9, 9, 30, 30]]
SCORES, LABELS = [0.9, 0.9, 0.3], [1, 1, 0]


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "matched"),
    [
        (BOXES, SCORES, LABELS, 3),
        ([BOXES[1], BOXES[0], BOXES[2]], SCORES, LABELS, 3),  # a tie has no order
        (BOXES, SCORES, [1, 1, 1], 2),
        (BOXES, [0.9, 0.9, 0.0], LABELS, 2),
        ([*BOXES[:2], [9, 9, 30, 30.1]], SCORES, LABELS, 2),
        ([[float("nan")] * 4] * 3, SCORES, LABELS, 0),
    ],
)
def test_boxes_that_are_the_same(boxes, scores, labels, matched):
    agreement = BoxAgreement((SIDE, SIDE))
    file = ExportedDetections(*(part[None] for part in tensors(boxes, scores, labels)))
    agreement.update(Seen(*tensors(BOXES, SCORES, LABELS)), file)
    assert (agreement.count, agreement.matched) == (3, matched)
    assert agreement.holds == (matched == 3)
    assert agreement.summary.startswith("all 3 boxes" if matched == 3 else f"{matched} of 3 boxes")


TWINS = [[0.0, 0, 8, 8], [0, 1, 8, 9]]  # one hides the other


class Whole(Seen):
    """Predictions with all boxes that they were made of."""

    def decoded(self, size):
        return torch.tensor([TWINS]), torch.tensor([[[0.0, 0.9], [0.0, 0.9]]])


@pytest.mark.parametrize(
    ("box", "score", "holds"),
    [(TWINS[1], 0.9, True), (TWINS[1], 0.8, False), ([0.0, 2, 8, 10], 0.9, False)],
)
def test_of_two_that_tie_either_may_be_kept(box, score, holds):
    agreement = BoxAgreement((SIDE, SIDE))
    kept = Whole(*tensors(TWINS[:1], [0.9], [1]))
    agreement.update(
        kept, ExportedDetections(*(part[None] for part in tensors([box], [score], [1])))
    )
    assert (agreement.count, agreement.matched, agreement.holds) == (1, 0, holds)
    assert ("where rounding decides" if holds else "more than rounding") in agreement.summary


class Hidden(Seen):
    """Predictions that cannot be taken apart."""

    loss = soft_loss = comparable = detach = None


class Closed(nn.Module):
    def forward(self, x):
        return Hidden(*tensors(BOXES, SCORES, LABELS))


def test_a_detector_that_cannot_be_exported(tmp_path):
    _, data = make_run(tmp_path / "run", "detection")
    with pytest.raises(ConfigError, match=r"Closed finds its boxes .* not exported; the yolov5"):
        task_for(data).inference_module(Closed())


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_no_image_leaves_a_scene_early(task):
    data = SimpleNamespace(task=task)
    with pytest.raises(ConfigError, match=f"{task} gives images none; take one exit by itself"):
        early_exit_network(None, data, 0.9, max_loss=0.01, num_workers=0)


def test_a_detector_pays_for_all_that_runs(tmp_path):
    run, _ = make_run(tmp_path / "run", "detection")
    network = run.method.predictors()["student"]
    counted = network_cost(network, torch.zeros(2, 3, SIDE, SIDE))
    kernels = [(3 * 8, 8), (8 * 8, 4), (8 * 12, 2)]  # channels in × out, cells a side
    heads = [(8 * 21, 8), (8 * 21, 4), (12 * 21, 2)]
    macs = sum(9 * k * side**2 for k, side in kernels) + sum(k * side**2 for k, side in heads)
    assert counted.macs == macs
    assert counted.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.slow
def test_yolov5s_costs_what_is_published():
    """17.0 GFLOPs at 640 of release 5.0, two a multiply-add."""
    network = build("yolov5/s", num_classes=80, in_channels=3)
    assert 2 * network_cost(network, torch.zeros(1, 3, 640, 640)).macs / 1e9 == pytest.approx(
        17.0, abs=0.1
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["segmentation", "detection"])
def test_int8_of_masks_and_boxes(tmp_path, monkeypatch, kind):
    """What follows the last layers stays as it is: boxes, suppression, masks at full size."""
    monkeypatch.setattr(
        int8_export, "interleaved_times", lambda calls, **_: {n: [1.0] for n in calls}
    )
    run, data = make_run(tmp_path / "run", kind)
    data = replace(data, val=data.test)
    (run.path / "data.json").write_text(describe_data(data).to_json())
    run.exits = true_scores(run.method, data)
    options = Int8Options(max_loss=0.9)
    done = export_run(run, data, exit="student", format="onnx-int8", int8=options)
    assert done.int8.metric == {"segmentation": "miou", "detection": "map"}[kind]
    full = export_run(run, data, exit="student", format="onnx")
    assert done.int8.float_score == pytest.approx(full.verification.score)
    assert done.int8.size == done.file.stat().st_size
    images = data.test.images.float() / 255
    expected, actual = onnx_runner(full.file)(images), onnx_runner(done.file)(images)
    if kind == "segmentation":
        assert actual.shape == expected.shape
        assert (actual - expected).norm() < 0.1 * expected.norm()
        return
    (boxes, scores, labels), (_, expected_scores, _) = actual, expected
    assert boxes.shape == (9, 300, 4)
    assert labels.dtype == torch.int64
    assert bool((scores[:, :-1] >= scores[:, 1:]).all())
    assert (scores - expected_scores).abs().max() < 0.1
    graph = onnx.load(done.file).graph
    quantized = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert done.int8.layers == 6
    assert len(quantized) == 4  # the images, and what each stage and its head read, once
