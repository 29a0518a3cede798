"""Methods that compare or convolve places, between convolutions and transformers.

What tells whether a method sees where things are: a feature whose columns are rolled has other
values at nearly all places and the same ones in each row, so its loss must be another.
"""

from collections import OrderedDict

import pytest
import timm
import torch
from torch import nn

from selfdistill.core import Batch, ConfigError, Progress
from selfdistill.recipe.build_method import build_method
from selfdistill.tasks import make_task

SIDE = 32


def vit() -> nn.Module:
    size = {"embed_dim": 12, "num_heads": 2, "num_classes": 5, "depth": 4}
    return timm.create_model("vit_tiny_patch16_224", img_size=SIDE, patch_size=4, **size)


def convolutions() -> nn.Module:
    channels = (3, 8, 12, 16, 24)
    stages = {
        f"stage{i}": nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU())
        for i, (a, b, stride) in enumerate(
            zip(channels, channels[1:], (1, 2, 2, 2), strict=False), 1
        )
    }
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(OrderedDict(**stages, pool=end, fc=nn.Linear(24, 5)))


def roll_columns(module, args, output):
    """Of a map (B, C, H, W), or of tokens behind a class token."""
    if output.dim() == 4:
        return output.roll(1, 3)
    patches = output[:, 1:].unflatten(1, (SIDE // 4, SIDE // 4))
    return torch.cat([output[:, :1], patches.roll(1, 2).flatten(1, 2)], 1)


def loss(method, rolled: nn.Module | None = None) -> float:
    """Of all terms but those of outputs, with a feature of the network rolled on its way."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, SIDE, SIDE, generator=generator)
    batch = Batch(images, torch.arange(6) % 5, torch.arange(6))
    handles = []
    if rolled is not None:
        names = (method.teacher if hasattr(method, "teacher") else method.student).names
        for name in names:
            module = rolled.get_submodule(name)
            handles.append(module.register_forward_hook(roll_columns, prepend=True))
    with torch.no_grad():
        losses = method(batch, Progress(*map(torch.tensor, (0, 0, 3, 10)))).losses
    for handle in handles:
        handle.remove()
    kinds = ("task", "soft", "global")
    return sum(v.item() for name, v in losses.items() if name.split("/")[0] not in kinds)


def build(name: str, student: nn.Module, teacher: nn.Module | None, **options):
    torch.manual_seed(1)
    task = make_task("classification", "abcde", (3, SIDE, SIDE))
    return build_method(name, student, task, chosen=options, teacher=teacher).eval()


OFFLINE = {
    "at": {},
    "nst": {},
    "vid": {},
    "fitnets": {"regressor_relu": False},
    "nfd": {},
    "mimkd": {},
}


@pytest.mark.parametrize("to_tokens", [False, True])
@pytest.mark.parametrize("name", OFFLINE)
def test_columns_of_the_teacher_count(name, to_tokens):
    torch.manual_seed(0)
    networks = [convolutions(), vit()]
    student, teacher = networks[::-1] if to_tokens else networks
    method = build(name, student, teacher, **OFFLINE[name])
    plain, moved = loss(method), loss(method, teacher)
    assert abs(moved - plain) > 2e-6 * abs(plain)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("muse", {"critic": "concat"}),
        ("muse", {"bottleneck": "byot"}),
        ("frskd", {}),
        ("sad", {}),
    ],
)
def test_columns_of_a_transformer_of_its_own_teacher_count(name, options):
    """A layer that convolves tokens as rows of patches has other values at the map's edges."""
    torch.manual_seed(0)
    student = vit()
    method = build(name, student, None, **options)
    plain = loss(method)
    first = method.student.names[0]
    handle = student.get_submodule(first).register_forward_hook(roll_columns, prepend=True)
    assert loss(method) != plain
    handle.remove()
    assert loss(method) == pytest.approx(plain)
    assert all(height == width > 1 for _, height, width in method.student.shapes.values())


def test_attention_of_one_map_as_tokens_and_as_a_map_is_equal():
    """The same content, once as a map and once as tokens behind a class token."""
    content = torch.randn(2, 7, 8, 8, generator=torch.Generator().manual_seed(0))

    class AsMap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.fc = nn.Identity(), nn.Identity(), nn.Linear(7, 5)

        def forward(self, x):
            return self.fc(self.second(self.first(content)).mean((2, 3)))

    class AsTokens(AsMap):
        num_prefix_tokens = 1

        def forward(self, x):
            tokens = content.flatten(2).transpose(1, 2)
            tokens = torch.cat([100 * torch.ones(2, 1, 7), tokens], 1)
            return self.fc(self.second(self.first(tokens))[:, 0])

    task = make_task("classification", "abcde", (3, SIDE, SIDE))
    batch = Batch(torch.zeros(2, 3, SIDE, SIDE), torch.arange(2), torch.arange(2))
    method = build_method("at", AsMap(), task, "first,second", teacher=AsTokens(),
                          teacher_taps="first,second")  # fmt: skip
    losses = method(batch, Progress(*map(torch.tensor, (0, 0, 0, 1)))).losses
    assert losses["attention/1"].item() == pytest.approx(0, abs=1e-9)
    assert losses["attention/2"].item() == pytest.approx(0, abs=1e-9)


def test_tokens_without_a_grid_are_refused_beside_maps():
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.fc = nn.Identity(), nn.Identity(), nn.Linear(3, 5)

        def forward(self, x):
            tokens = x.flatten(2)[:, :, :50].transpose(1, 2)
            return self.fc(self.second(self.first(tokens)).mean(1))

    for name in ("at", "nst", "vid", "fitnets", "nfd", "mimkd"):
        task = make_task("classification", "abcde", (3, SIDE, SIDE))
        with pytest.raises(ConfigError, match="places in the image are unknown"):
            build_method(
                name, convolutions(), task, "stage1,stage2", teacher=Sequence(),
                teacher_taps="first,second",
            )  # fmt: skip
    build_method(  # which compares no places
        "rkd", convolutions(), task, "stage1,stage2", teacher=Sequence(),
        teacher_taps="first,second",
    )  # fmt: skip


@pytest.mark.parametrize(("name", "part"), [("one", "gate"), ("mixskd", "self_teacher")])
def test_what_cuts_a_transformer_lays_its_patches_out_too(name, part):
    network = vit().eval()
    method = build_method(name, network, make_task("classification", "abcde", (3, SIDE, SIDE)))
    seen = []
    getattr(method, part).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, SIDE, SIDE, generator=generator)
    method(
        Batch(images, torch.arange(6) % 5, torch.arange(6)),
        Progress(*map(torch.tensor, (0, 0, 3, 10))),
    )
    assert {tuple(x.shape[2:]) for x in seen} == {(SIDE // 4, SIDE // 4)}
