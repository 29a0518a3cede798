"""A run as training leaves it, of networks that nobody trained."""

from types import SimpleNamespace

import torch
from true_scores import true_scores

from selfdistill.data import ImageData
from selfdistill.data.in_memory import InMemoryImages
from selfdistill.recipe.build_method import build_method
from selfdistill.recipe.data_check import describe_data


def make_run(network, task, path, method="muse", taps="stage1,stage2"):
    """A run as training leaves it, and its data."""
    pixels = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8)
    images = InMemoryImages(pixels, torch.arange(40) % 5)
    fields = {"classes": list("abcde"), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    fields |= {"crop_padding": 0, "flip": False, "resized_crop": False}
    data = ImageData("mine", images, images, None, **fields)
    path.mkdir()
    recipe = f'method = "{method}"\nmodel = "Mine"\ndata = "mine"\nseed = 0\nepochs = 1\n'
    (path / "recipe.toml").write_text(recipe)
    (path / "data.json").write_text(describe_data(data).to_json())
    built = build_method(method, network, task, taps, {})
    names = ("exit1", "student") if taps != "auto" else ("student",)
    exits = true_scores(built, data, names)
    return SimpleNamespace(path=path, method=built, exits=exits), data
