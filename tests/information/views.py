"""Images of noise, and networks whose modules show chosen parts of them."""

import torch
from torch import Tensor, nn

from selfdistill.data import ImageData, InMemoryImages
from selfdistill.information import EstimatorConfig, InformationResult, estimate_information

QUICK = EstimatorConfig(steps=60, batch_size=64, width=16, lr=0.03)


class Shows(nn.Module):
    """A module whose feature is a given function of the images."""

    def __init__(self, view):
        super().__init__()
        self.view = view

    def forward(self, x):
        return self.view(x)


class Views(nn.Module):
    """Features of the images, shallowest first; each is what a module before the output saw."""

    def __init__(self, *views, classes=2):
        super().__init__()
        self.parts = nn.ModuleList(map(Shows, views))
        self.cuts = [f"parts.{i}" for i in range(len(views))]
        self.classes = classes

    def forward(self, x):
        features = [part(x) for part in self.parts]
        return features[-1].flatten(1)[:, :1].expand(-1, self.classes)


def pixels(values: Tensor) -> Tensor:
    """(N, C, H, W) of deviation 1 as bytes; 4 deviations fit on each side."""
    return (128 + 32 * values).round().clamp(0, 255).to(torch.uint8)


def data_of(values: Tensor, val: int = 256, labels: Tensor | None = None, **changes) -> ImageData:
    """Images that a network sees as these values, the last of them for validation."""
    labels = torch.arange(len(values)) % 2 if labels is None else labels
    images = InMemoryImages(pixels(values), labels)
    train, held = (images.take(i) for i in torch.arange(len(values)).tensor_split([-val]))
    channels = values.shape[1]
    mean, std = (128 / 255,) * channels, (32 / 255,) * channels
    keys = {"test": None, "crop_padding": 0, "flip": False, "resized_crop": False} | changes
    keys = {"train": train, "val": held if val else None, **keys}
    return ImageData("noise", classes=["a", "b"], mean=mean, std=std, **keys)


def noise(n: int, channels: int, side: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, side, side, generator=generator)


def steady(n: int, channels: int, seed: int = 0) -> Tensor:
    """Images that are the same at all four places."""
    return noise(n, channels, 1, seed).expand(-1, -1, 2, 2)


def losses(
    network: nn.Module, data: ImageData, config: EstimatorConfig = QUICK
) -> dict[str, float]:
    """The last held-out losses of one network."""
    return of(estimate_information({"network": network}, data, config))


def of(result: InformationResult, network: str = "network") -> dict[str, float]:
    return {term: result.final(network, term).mean for term in result.terms(network)}
