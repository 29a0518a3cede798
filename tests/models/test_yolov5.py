"""YOLOv5 by the published numbers of parameters, and as a network that can be cut."""

import pytest
import torch
from torch import nn

from selfdistill.core import ConfigError
from selfdistill.models import build
from selfdistill.models.yolov5 import Scale, YOLOv5
from selfdistill.taps import Taps
from selfdistill.taps import fx_split as segments
from selfdistill.tasks import Detection

# "Model Summary: … parameters" of release 5.0 with 80 classes, as its test.py prints it after each
# batch norm was folded into its convolution
FOLDED = {"s": 7_266_973, "m": 21_356_877, "l": 47_025_981, "x": 87_730_285}
PUBLISHED = {"s": 7.3, "m": 21.4, "l": 47.0, "x": 87.7}  # millions, of its README


@pytest.mark.parametrize("name", FOLDED)
def test_parameters_are_those_of_release_5(name):
    with torch.device("meta"):
        network = build(f"yolov5/{name}", num_classes=80)
    total = sum(p.numel() for p in network.parameters())
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert total - sum(m.num_features for m in norms) == FOLDED[name]
    assert total / 1e6 == pytest.approx(PUBLISHED[name], abs=0.1)


@pytest.mark.parametrize(("name", "width"), [("s", 256), ("m", 384), ("l", 512), ("x", 640)])
def test_the_cuts_are_those_of_muse(name, width):
    with torch.device("meta"):
        network = build(f"yolov5/{name}", num_classes=80)
        taps = Taps(network, example=torch.empty(2, 3, 640, 640))
    assert list(taps.shapes.values()) == [(width, 40, 40), (2 * width, 20, 20)]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return YOLOv5(Scale(0.33, 0.125), 2)


def test_it_can_be_cut_behind_each_module_of_muse(network):
    x = torch.randn(2, 3, 64, 96)
    network.eval()
    taps = Taps(network, example=x)
    _, features = taps.forward_features(x)
    for name in network.cuts:
        torch.testing.assert_close(segments.truncate_at(network, name)(x), features[name])


def test_the_neck_leads_around_the_last_cut(network):
    with pytest.raises(ConfigError, match="leads around"):
        segments.split_at(network, ["backbone.9"])


def test_tracing_changes_nothing(network):
    x = torch.randn(2, 3, 64, 96)
    network.eval()
    traced = torch.fx.symbolic_trace(network)
    for ours, reference in zip(traced(x).maps, network(x).maps, strict=True):
        torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (70, 130)])
def test_any_size_will_do(network, size):
    out = network(torch.zeros(1, 3, *size))
    targets = torch.tensor([[[0.0, 5.0, 5.0, 40.0, 50.0]]])
    assert out.loss(targets, size).isfinite()
    assert len(out.detections(size)) == 1


def test_other_channels():
    with torch.device("meta"):
        network = build("yolov5/n", num_classes=4, in_channels=1)
    assert len(network(torch.empty(1, 1, 64, 64, device="meta")).maps) == 3


@pytest.mark.parametrize(
    ("model", "weights", "says"),
    [("yolov5/t", "", "no network 'yolov5/t'"), ("yolov5/s", "pretrained", "no pretrained")],
)
def test_what_there_is_not(model, weights, says):
    with pytest.raises(ConfigError, match=says):
        build(model, num_classes=2, weights=weights)


def scenes(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Red and blue rectangles on dark noise, with the rows of their boxes."""
    generator = torch.Generator().manual_seed(0)

    def draw(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    images = 0.2 * torch.rand(count, 3, side, side, generator=generator)
    rows = torch.full((count, 4, 5), -1.0)
    for i in range(count):
        for j in range(1 + draw(3)):
            kind, wide, tall = draw(2), 12 + draw(20), 12 + draw(20)
            x, y = draw(side - wide), draw(side - tall)
            images[i, :, y : y + tall, x : x + wide] = 0.1
            images[i, 2 * kind, y : y + tall, x : x + wide] = 1.0
            rows[i, j] = torch.tensor([kind, x, y, x + wide, y + tall])
    return images, rows


def trained(steps: int, side: int, count: int) -> tuple[float, float, float]:
    """The loss before and after learning a few images by heart, and what is found in them."""
    torch.manual_seed(0)
    images, rows = scenes(count, side)
    network, task = YOLOv5(Scale(0.33, 0.125), 2), Detection(["red", "blue"], images[:2])
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, steps)
    losses = []
    for _ in range(steps):
        losses.append(task.loss(network(images), rows))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
        schedule.step()
    network.eval()
    metric = task.metric()
    with torch.inference_mode():
        metric.update(network(images), rows)
    return losses[0].item(), losses[-1].item(), metric.compute()["map50"].item()


def test_it_learns():
    before, after, _ = trained(steps=15, side=64, count=4)
    assert after < 0.7 * before


@pytest.mark.slow
def test_it_learns_a_few_images_by_heart():
    _, _, precision = trained(steps=400, side=64, count=8)
    assert precision > 0.9
