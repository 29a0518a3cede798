"""Mobile networks; timm's own, with their cuts."""

from torch import nn


def efficientnet_b0(*, num_classes: int, in_channels: int = 3) -> nn.Module:
    """timm's EfficientNet-B0 as it is, for images of about 224×224.

    Tan and Le 2019, https://arxiv.org/abs/1905.11946, table 1. The cuts are the ends of the third,
    fifth and sixth stage of mobile blocks (40×28×28, 112×14×14 and 192×7×7 for a 224×224 image)
    and the 1×1 convolution after the last with its batch norm and activation (`bn2`, 1280×7×7).

    Args:
        num_classes: outputs.
        in_channels: channels of the images.
    """
    import timm  # takes seconds to import: only those who ask for it wait

    network = timm.create_model("efficientnet_b0", num_classes=num_classes, in_chans=in_channels)
    network.cuts = ("blocks.2", "blocks.4", "blocks.5", "bn2")  # type: ignore[assignment]
    return network


NETWORKS = {"efficientnet_b0": efficientnet_b0}
