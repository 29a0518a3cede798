"""Where peers are read: like the student where they have its modules, else by the method's kind."""

import pytest

from selfdistill.models import build
from selfdistill.recipe.build_method import build_method
from selfdistill.taps import Taps
from selfdistill.tasks import make_task

STAGES = ("layer1", "layer2", "layer3")
TASK = make_task("classification", "abc", (3, 16, 16))


def network(name="cifar/resnet8"):
    return build(name, num_classes=3, in_channels=3)


def tap_names(method):
    return [module.names for module in method.modules() if isinstance(module, Taps)]


@pytest.mark.parametrize("taps", ["stages", "layer1,layer2,layer3", STAGES])
def test_peers_are_read_where_the_student_is(taps):
    method = build_method("muse-online", network(), TASK, taps=taps, peers=[network()])
    assert tap_names(method) == [STAGES, STAGES]


def test_peers_of_other_networks_are_read_by_the_kind_of_the_method():
    other = build("cifar/mobilenet_v2", num_classes=3, in_channels=3)
    method = build_method("muse-online", network(), TASK, taps=STAGES, peers=[other])
    automatic = build_method("muse-online", network(), TASK, peers=[other])
    assert tap_names(method) == [STAGES, tap_names(automatic)[1]]


@pytest.mark.parametrize("name", ["muse-online+sad", "muse-online+frskd", "dml+sad", "afd+exits"])
@pytest.mark.parametrize("taps", ["auto", "stages", "layer1,layer3"])
def test_joined_methods_read_the_same_places(name, taps):
    method = build_method(name, network(), TASK, taps=taps, peers=[network()])
    if taps != "auto":
        wanted = STAGES if taps == "stages" else ("layer1", "layer3")
        assert {*tap_names(method)} == {wanted}
