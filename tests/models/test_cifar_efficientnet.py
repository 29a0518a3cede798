"""EfficientNet is timm's."""

import timm
import torch

from selfdistill.models.cifar import NETWORKS


def test_is_timms():
    with torch.device("meta"):
        ours = NETWORKS["efficientnet_b0"](num_classes=10, in_channels=1)
        reference = timm.create_model("efficientnet_b0", num_classes=10, in_chans=1)
    shapes = {k: v.shape for k, v in reference.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == shapes
