"""Device, precision and memory format where a recipe leaves them to the machine."""

import pytest
import torch
from torch import nn

from selfdistill.core import METHODS, machine
from selfdistill.errors import ConfigError
from selfdistill.recipe import machine_choices
from selfdistill.recipe.machine_choices import check_precision, chosen_by_machine, precision_of
from selfdistill.recipe.schema import Recipe
from selfdistill.taps import Taps

EXAMPLE = torch.zeros(2, 3, 8, 8)
CONVOLUTIONAL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 1)))
PATCHES = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(2), nn.LayerNorm(4), nn.Linear(4, 4))
CLIPS = nn.Sequential(nn.Conv3d(3, 4, 3), nn.Conv3d(4, 4, 3))


def chosen(recipe, network, example=EXAMPLE):
    return chosen_by_machine(recipe, network, METHODS["ce"](network, None), example)


@pytest.fixture
def fast(monkeypatch):
    """Lets devices of a type have bf16 in hardware."""

    def devices(*types):
        monkeypatch.setattr(machine_choices, "has_fast_bfloat16", lambda kind: kind in types)

    return devices


@pytest.mark.parametrize(
    ("device", "types", "expected"),
    [
        ("cpu", (), "fp32"),
        ("cpu", ("cpu",), "bf16"),
        ("cuda", ("cpu",), "fp32"),
        ("cuda", ("cuda",), "bf16"),
        ("mps", ("cpu", "cuda"), "fp32"),
    ],
)
def test_auto_is_bf16_where_the_device_has_it(fast, device, types, expected):
    fast(*types)
    assert precision_of(Recipe(device=device)) == expected
    for named in ("fp32", "bf16", "fp16"):
        assert precision_of(Recipe(device=device, precision=named)) == named


def test_the_device_is_the_gpu_where_there_is_one(monkeypatch, fast):
    fast("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert precision_of(Recipe()) == "bf16"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision_of(Recipe()) == "fp32"


@pytest.mark.parametrize(
    ("network", "device", "precision", "last"),
    [
        (CONVOLUTIONAL, "cpu", "fp32", True),
        (CONVOLUTIONAL, "cpu", "bf16", True),
        (CONVOLUTIONAL, "cuda", "fp32", False),
        (CONVOLUTIONAL, "cuda", "bf16", True),
        (CONVOLUTIONAL, "cuda", "fp16", True),
        (PATCHES, "cpu", "bf16", False),
        (CLIPS, "cpu", "fp32", False),
        (nn.Linear(3, 4), "cuda", "bf16", False),
    ],
)
def test_channels_come_last_where_convolutions_gain(network, device, precision, last):
    recipe = Recipe(device=device, precision=precision)
    assert chosen(recipe, network).channels_last is last
    for given in (False, True):
        given_recipe = recipe.model_copy(update={"channels_last": given})
        assert chosen(given_recipe, network).channels_last is given


def test_what_is_decided_stays(fast):
    fast("cpu")
    decided = chosen(Recipe(device="cpu"), CONVOLUTIONAL)
    fast()
    assert decided.precision == "bf16"
    assert chosen(decided, PATCHES) == decided


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        ("", True),
        ("DEFAULT", True),
        ("AVX512_CORE_BF16", True),
        ("avx512_core_amx", True),
        ("AVX512_CORE", False),
        ("AVX2", False),
    ],
)
def test_a_limit_of_onednn_is_heeded(monkeypatch, variable, limit, allowed):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setenv(variable, limit)
    assert machine.has_fast_bfloat16("cpu") is allowed


def test_processors_and_gpus_are_asked(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    for bf16, amx in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda a=bf16: a)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda a=amx: a)
        assert machine.has_fast_bfloat16("cpu") is (bf16 or amx)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not machine.has_fast_bfloat16("cpu")
    assert not machine.has_fast_bfloat16("mps")
    emulated = []
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: emulated.append(1) or True
    )
    assert machine.has_fast_bfloat16("cuda")
    assert emulated


@pytest.mark.parametrize(
    ("layer", "side", "wrong"),
    [
        (nn.Conv2d(3, 4, 3, 2, 1), 1, True),
        (nn.Conv2d(3, 4, 3, 1, 1), 1, True),
        (nn.Conv2d(3, 4, 3, 1, 1), 2, False),
        (nn.Conv2d(3, 4, 3, 2, 1), 2, True),
        (nn.Conv2d(3, 4, 3, 2, 1), 3, False),
        (nn.Conv2d(3, 4, 7, 2, 3), 4, True),
        (nn.Conv2d(3, 4, 7, 2, 3), 8, False),
        (nn.Conv2d(3, 4, 3, 1, 2, dilation=2), 2, True),
        (nn.Conv2d(3, 4, (1, 3), 1, (0, 1)), 1, True),
        (nn.Conv2d(3, 4, 3, padding="same"), 1, True),
        (nn.Conv2d(3, 4, 3, 1, 1, padding_mode="replicate"), 1, False),
        (nn.Conv2d(3, 4, 1), 1, False),
    ],
)
def test_bf16_is_not_for_kernels_that_meet_padding_alone(fast, layer, side, wrong):
    """By what a convolution of ones reaches: a weight that no pixel meets has no gradient."""
    fast("cpu")
    example = torch.ones(2, 3, side, side)
    layer.weight.grad = None
    layer(example).sum().backward()
    unmet = bool((layer.weight.grad == 0).any())
    assert unmet == wrong
    network = nn.Sequential(layer, nn.Flatten())
    assert chosen(Recipe(device="cpu"), network, example).precision == ("fp32" if wrong else "bf16")
    assert chosen(Recipe(device="cuda", precision="bf16"), network, example).precision == "bf16"
    given = Recipe(device="cpu", precision="bf16")
    if wrong:
        with pytest.raises(ConfigError, match="--precision fp32"):
            check_precision(given, METHODS["ce"](network, None), example)
    else:
        check_precision(given, METHODS["ce"](network, None), example)
    assert chosen(given, network, example).precision == "bf16"  # as it may be loaded


class Critic(nn.Module):
    """What a method trains beside its student, on the features of its taps."""

    def __init__(self, student, conv):
        super().__init__()
        self.student, self.conv = student, conv

    def predictors(self):
        return {"student": self.student.network}


@pytest.mark.parametrize(
    ("conv", "expected"),
    [
        (nn.Conv2d(4, 4, 3, padding=1), "fp32"),
        (nn.Conv2d(4, 4, 3, padding=1).requires_grad_(requires_grad=False), "bf16"),
        (nn.Conv2d(4, 4, 1), "bf16"),
    ],
)
def test_bf16_is_not_for_what_trains_on_maps_of_one_cell(fast, conv, expected):
    fast("cpu")
    network = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, 2))
    method = Critic(Taps(network, ["0"], example=EXAMPLE), conv)
    decided = chosen_by_machine(Recipe(device="cpu"), network, method, EXAMPLE)
    assert decided.precision == expected


def test_bf16_is_not_for_3d_convolutions(fast):
    """Their gradients are wrong in torch 2.15; where they are frozen there are none."""
    fast("cpu")
    clip = torch.zeros(1, 3, 8, 8, 8)
    assert chosen(Recipe(device="cpu"), CLIPS, clip).precision == "fp32"
    method = METHODS["ce"](CLIPS, None)
    with pytest.raises(ConfigError, match=r"3-D convolutions; train with --precision fp32"):
        check_precision(Recipe(device="cpu", precision="bf16"), method, clip)
    check_precision(Recipe(device="cuda", precision="bf16"), method, clip)
    frozen = nn.Sequential(nn.Conv3d(3, 4, 3)).requires_grad_(requires_grad=False)
    assert chosen(Recipe(device="cpu"), frozen, clip).precision == "bf16"
