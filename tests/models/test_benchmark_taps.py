"""The features of the CRD benchmark, which every stage-wise method takes unless told otherwise.

Its networks return [stem, stages …, pooled], and its loop gives `feat[1:-1]` to attention transfer,
NST and VID, `feat[2]` to hints and `feat[-2]` to similarity; read in RepDistiller's `models/` and
`helper/loops.py`. Shapes are for images of 32×32.
"""

import pytest
import torch

from selfdistill.core import METHODS
from selfdistill.models import build
from selfdistill.recipe.build_method import build_method
from selfdistill.taps import Taps, find_taps
from selfdistill.tasks import make_task

THREE = ["layer1", "layer2", "layer3"]
SMALL = [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
WIDE = [(64, 32, 32), (128, 16, 16), (256, 8, 8)]
VGG = [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)]
BENCHMARK = {
    **{f"resnet{depth}": (THREE, SMALL) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": (THREE, WIDE),
    "resnet32x4": (THREE, WIDE),
    "vgg8": ([f"features.block{i}" for i in (2, 3, 4, 5)], VGG),
    "vgg13": ([f"features.block{i}" for i in (2, 3, 4, 5)], VGG),
    "wrn_16_1": (["block1", "block2", "block3"], SMALL),
    "wrn_16_2": (["block1", "block2", "block3"], [(32, 32, 32), (64, 16, 16), (128, 8, 8)]),
    "wrn_40_1": (["block1", "block2", "block3"], SMALL),
    "wrn_40_2": (["block1", "block2", "block3"], [(32, 32, 32), (64, 16, 16), (128, 8, 8)]),
    "mobilenet_v2": (
        [f"features.layer{i}" for i in (2, 3, 5, 7)],
        [(12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)],
    ),
    "shufflenet_v1": (THREE, [(240, 16, 16), (480, 8, 8), (960, 4, 4)]),
    "shufflenet_v2": (THREE, [(116, 16, 16), (232, 8, 8), (464, 4, 4)]),
    "resnet18": ([*THREE, "layer4"], [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]),
    "resnet50": ([*THREE, "layer4"], [(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)]),
}


@pytest.mark.parametrize("name", BENCHMARK)
def test_stages_are_the_benchmarks(name):
    network = build(f"cifar/{name}", num_classes=10, in_channels=3)
    taps = Taps(network, "stages", example=torch.zeros(2, 3, 32, 32))
    assert (list(taps.names), list(taps.shapes.values())) == BENCHMARK[name]


def test_without_stages_of_its_own_a_network_is_looked_at():
    network = build("timm/resnet18", num_classes=10, in_channels=3)
    example = torch.zeros(2, 3, 64, 64)
    assert find_taps(network, example, stages=True) == find_taps(network, example)
    network = build("cifar/vgg13_bn", num_classes=10, in_channels=3)
    assert find_taps(network, example, stages=True) == list(network.cuts)


def method(name: str, **options):
    task = make_task("classification", [str(i) for i in range(10)], (3, 32, 32))
    networks = (
        build(f"cifar/{n}", num_classes=10, in_channels=3) for n in ("wrn_16_1", "wrn_16_2")
    )
    student, teacher = networks
    return build_method(name, student, task, chosen=options, teacher=teacher)


@pytest.mark.parametrize("name", ["at", "nst", "vid"])
def test_a_term_for_each_stage_and_none_for_the_stem(name):
    built = method(name)
    assert built.student.names == built.teacher.names == ("block1", "block2", "block3")
    assert METHODS[name].default_taps == "stages"


@pytest.mark.parametrize("name", ["frskd", "sad"])
@pytest.mark.parametrize("network", ["resnet8", "shufflenet_v2", "vgg8", "mobilenet_v2"])
def test_stages_that_learn_from_one_another_leave_out_the_stem(name, network):
    task = make_task("classification", "abcde", (3, 32, 32))
    built = build_method(name, build(f"cifar/{network}", num_classes=5, in_channels=3), task)
    assert list(built.student.names) == BENCHMARK[network][0]


def test_hint_and_similarity_are_the_benchmarks():
    hints = method("fitnets")
    assert (hints.student_tap, hints.teacher_tap) == ("block2", "block2")  # its feat[2]
    assert method("sp").pairs == [("block3", "block3")]  # its feat[-2]
    for name in ("muse-offline", "mimkd", "rkd", "nfd"):  # the last one is what is pooled
        assert method(name).teacher.names == ("stem", "block1", "block2", "norm")


def test_named_taps_win():
    task = make_task("classification", [str(i) for i in range(10)], (3, 32, 32))
    networks = [build("cifar/resnet8", num_classes=10, in_channels=3) for _ in range(2)]
    built = build_method("at", networks[0], task, "stem,layer3", teacher=networks[1],
                         teacher_taps=["layer1", "layer3"])  # fmt: skip
    assert built.student.names == ("stem", "layer3")
    assert built.teacher.names == ("layer1", "layer3")
