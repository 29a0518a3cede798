"""torchvision's segmentation networks: their scores, and their stages one after the other."""

import pytest
import torch

from selfdistill.functional.places import resize_scores
from selfdistill.models import build
from selfdistill.taps import Taps
from selfdistill.taps.fx_split import split_at

CHAINS = ["deeplabv3_mobilenet_v3_large", "fcn_resnet50"]


@pytest.fixture(scope="module", params=[*CHAINS, "lraspp_mobilenet_v3_large"])
def network(request):
    torch.manual_seed(0)
    made = build(f"torchvision/{request.param}", num_classes=3).eval()
    made.name = request.param
    return made


def test_scores_are_torchvisions_before_they_are_enlarged(network):
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        scores, wanted = network(images), network.network(images)["out"]
    assert scores.shape[2:] < wanted.shape[2:]
    assert torch.equal(resize_scores(scores, (64, 48)), wanted)


def test_its_stages_follow_each_other(network):
    images = torch.randn(2, 3, 64, 64)
    taps = Taps(network, example=images)
    if network.name not in CHAINS:
        with pytest.raises(ValueError, match="without skips into a decoder"):
            split_at(network, taps.names)
        return
    x = images
    with torch.no_grad():
        for part in split_at(network, taps.names):
            x = part(x)
        assert torch.equal(x, network(images))
