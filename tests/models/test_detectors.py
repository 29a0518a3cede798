"""torchvision's detectors: losses and boxes are those of torchvision's own forward pass."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.detection.image_list import ImageList

from selfdistill.core import ConfigError, ResourceError
from selfdistill.models import build, detectors, list_models
from selfdistill.taps import Taps
from selfdistill.taps import fx_split as segments
from selfdistill.tasks import Detection, check_network

K = 3
SMALL = ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"]
LARGE = [
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
]
MODELS = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
TARGETS = torch.tensor(
    [[[0, 10, 10, 40, 50], [2, 5, 20, 90, 60.0]], [[-1.0, 0, 0, 0, 0], [-1, 0, 0, 0, 0]]]
)


class Unchanged(nn.Module):
    """In the place of torchvision's transform: the batch as it is."""

    def forward(self, images, targets=None):
        return ImageList(torch.stack(images), [tuple(i.shape[1:]) for i in images]), targets

    def postprocess(self, result, sizes, original):
        return result


@pytest.fixture(scope="module")
def pairs():
    """Our form of a network and torchvision's, with the same weights."""
    built = {}

    def pair(name):
        if name not in built:
            torch.manual_seed(0)
            background = 0 if name.startswith(("retinanet", "fcos")) else 1
            reference_network = get_model(
                name, weights=None, weights_backbone=None, num_classes=K + background
            )
            reference_network.transform = Unchanged()
            ours = build(f"torchvision/{name}", num_classes=K)
            ours.load_state_dict(
                reference_network.state_dict()
            )  # the names are the same, each once
            built[name] = ours, reference_network, background
        return built[name]

    return pair


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_torchvisions(pairs, images, name):
    ours, reference_network, background = pairs(name)
    rows = TARGETS[0]
    expected = [
        {"boxes": rows[:, 1:], "labels": rows[:, 0].long() + background},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    ours, reference_network = copy.deepcopy(ours).train(), copy.deepcopy(reference_network).train()
    torch.manual_seed(1)  # Faster R-CNN draws proposals
    loss = ours(images).loss(TARGETS, (96, 128))
    torch.manual_seed(1)
    torch.testing.assert_close(loss, sum(reference_network(list(images), expected).values()))
    loss.backward()
    assert all(p.grad is not None for p in ours.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", MODELS)
def test_the_boxes_are_torchvisions(pairs, images, name):
    ours, reference_network, background = pairs(name)
    for network in (ours.eval(), reference_network.eval()):
        for threshold in (network, getattr(network, "roi_heads", None)):
            if hasattr(threshold, "score_thresh"):
                threshold.score_thresh = 0.001  # untrained networks are sure of nothing
    if hasattr(ours.decoder, "network"):
        ours.decoder.network.score_thresh = 0.001
    with torch.no_grad():
        result, expected = ours(images).detections((96, 128)), reference_network(list(images))
    assert sum(len(item.boxes) for item in result) > 10
    for outputs, want in zip(result, expected, strict=True):
        assert torch.equal(outputs.boxes, want["boxes"])
        assert torch.equal(outputs.scores, want["scores"])
        assert torch.equal(outputs.labels + background, want["labels"])


@pytest.mark.parametrize("name", SMALL)
def test_training_and_evaluation_give_both_loss_and_boxes(pairs, images, name):
    ours, _, _ = pairs(name)
    for mode in (True, False):
        ours.train(mode)
        flags = [m.training for m in ours.modules()]
        out = ours(images)
        assert out.loss(TARGETS, (96, 128)).isfinite()
        assert len(out.detach().detections((96, 128))) == 2
        assert [m.training for m in ours.modules()] == flags


@pytest.mark.parametrize("name", MODELS)
def test_it_can_be_tapped_and_shortened(pairs, images, name):
    ours, _, _ = pairs(name)
    ours.eval()
    check_network(ours, Detection(list("abc"), images))
    _, features = Taps(ours, example=images).forward_features(images)
    assert tuple(features) == ours.cuts
    last = ours.cuts[-1]
    torch.testing.assert_close(segments.truncate_at(ours, last)(images), features[last])


@pytest.mark.parametrize("name", SMALL)
def test_a_copy_has_parts_of_its_own(pairs, images, name):
    ours, _, _ = pairs(name)
    twin = copy.deepcopy(ours).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.normal_(0, 0.1)
        before = ours.eval()(images).detections((96, 128))
        for outputs, again in zip(before, ours(images).detections((96, 128)), strict=True):
            assert torch.equal(outputs.boxes, again.boxes)
        losses = [network(images).loss(TARGETS, (96, 128)) for network in (ours, twin)]
    assert all(torch.isfinite(loss) for loss in losses)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", [SMALL[0], *MODELS[2:5]])
def test_one_stage_distils_towards_its_like(pairs, images, name):
    ours, _, _ = pairs(name)
    task = Detection(list("abc"), images)
    out, other = ours.train()(images), ours(images + 0.5)
    reference = other._replace(
        outputs={k: v.detach().requires_grad_() for k, v in other.outputs.items()}
    )
    assert task.outputs_compatible(out, reference)
    assert task.soft_loss(out, out.detach(), 2.0).item() == pytest.approx(0, abs=1e-5)
    loss = task.soft_loss(out, reference, 2.0)
    loss.backward()
    assert loss > 0
    assert all(v.grad is None for v in reference.outputs.values())
    assert not out.compatible_with(ours(images[..., :64]))
    assert not out.compatible_with("something else")


def test_two_stages_do_not_compare(pairs, images):
    out = pairs(SMALL[1])[0](images)
    assert not out.compatible_with(out)
    with pytest.raises(ConfigError, match="do not compare"):
        out.soft_loss(out, 1.0)


def test_all_that_find_boxes_alone_are_listed():
    listed = detectors.detector_names()
    assert set(SMALL + LARGE) < set(listed)
    assert not [name for name in listed if "mask" in name or "keypoint" in name]
    assert {f"torchvision/{name}" for name in listed} <= set(list_models())


@pytest.mark.slow
def test_each_has_the_modules_that_it_is_cut_behind():
    for name in detectors.detector_names():
        with torch.device("meta"):
            network = detectors.torchvision_detector(name, K, False)
        assert set(network.cuts) <= {module for module, _ in network.named_modules()}


def test_a_backbone_that_cannot_be_fetched(monkeypatch):
    def offline(*args, **keywords):
        assert keywords["weights_backbone"] == "DEFAULT"
        raise OSError("offline")

    monkeypatch.setattr("torchvision.models.get_model", offline)
    with pytest.raises(ResourceError, match="could not be fetched"):
        build(f"torchvision/{SMALL[0]}", num_classes=K, weights="pretrained")
