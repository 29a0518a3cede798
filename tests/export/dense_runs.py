"""Runs of segmenters and detectors that nobody trained, as training leaves them."""

from collections import OrderedDict
from types import SimpleNamespace

import torch
from torch import nn
from true_scores import true_scores

from selfdistill.data import ImageData
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.data.targets import Boxes, Masks
from selfdistill.export.package import task_for
from selfdistill.models import build
from selfdistill.modules.anchor_head import AnchorHead
from selfdistill.recipe.build_method import build_method
from selfdistill.recipe.data_check import describe_data

SIDE = 32
NAMES = {"segmentation": ["sky", "road", "tree"], "detection": ["car", "cow"]}


class Detector(nn.Module):
    """Three stages and a head on all of them; it sees something everywhere."""

    def __init__(self):
        super().__init__()
        widths = [(3, 8, 4), (8, 8, 2), (8, 12, 2)]
        self.stages = nn.Sequential(
            OrderedDict((f"s{i}", nn.Conv2d(a, b, 3, s, 1)) for i, (a, b, s) in enumerate(widths))
        )
        self.head = AnchorHead([8, 8, 12], 2)

    def forward(self, x):
        maps = [x := stage(x).relu() for stage in self.stages]
        return self.head(maps)


def awake(module):
    """Heads that see objects with all kinds of scores."""
    for head in (m for m in module.modules() if isinstance(m, AnchorHead)):
        for conv in head.convs:
            nn.init.normal_(conv.weight, std=0.5)
            nn.init.normal_(conv.bias)
    return module


def make_run(path, kind):
    """A run as training leaves it, and its data."""
    torch.manual_seed(0)
    count, names = 9, NAMES[kind]
    corners = torch.tensor([[4.0, 4, 20, 20]]).expand(count, 1, 4)
    targets = {
        "segmentation": Masks(torch.randint(3, (count, SIDE, SIDE), dtype=torch.uint8)),
        "detection": Boxes(torch.cat([torch.zeros(count, 1, 1), corners], -1), (SIDE, SIDE)),
    }[kind]
    images = InMemoryImages(torch.randint(256, (count, 3, SIDE, SIDE), dtype=torch.uint8), targets)
    fields = {"classes": names, "mean": (0.5,) * 3, "std": (0.25,) * 3, "task": kind}
    fields |= {"crop_padding": 0, "flip": False, "resized_crop": False}
    data = ImageData("mine", images, None, images, **fields)
    network = Detector()
    taps = "stages.s0,stages.s2"
    if kind == "segmentation":
        network, taps = build("fpn/small", num_classes=3, in_channels=3), "auto"
    method = awake(build_method("exits", network, task_for(data), taps, {})).eval()
    path.mkdir()
    recipe = (
        f'method = "exits"\nmodel = "Mine"\ndata = "mine"\nseed = 0\nepochs = 1\ntask = "{kind}"\n'
    )
    (path / "recipe.toml").write_text(recipe)
    (path / "data.json").write_text(describe_data(data).to_json())
    return SimpleNamespace(path=path, method=method, exits=true_scores(method, data)), data
