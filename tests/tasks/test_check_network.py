"""Networks of a user's own: what is asked of their outputs, and what is said when it is not so."""

from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn
from torchvision.models import googlenet

import selfdistill
from selfdistill.core import ConfigError
from selfdistill.tasks import Classification, Segmentation, check_network

TASK = Classification("abc", torch.zeros(2, 3, 32, 32))


class Wrapped(nn.Module):
    """Scores in an object of some kind."""

    def __init__(self, wrap):
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.network(x), self.training)


@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (lambda z, training: (z, z), "returns the scores alone"),
        (lambda z, training: [z], "returns the scores alone"),
        (lambda z, training: {"out": z, "aux": z}, r"one of its tensors \('out', 'aux'\) alone"),
        (lambda z, training: SimpleNamespace(logits=z), r"its output's \.logits alone"),
        (lambda z, training: None, "returns the scores alone"),
    ],
)
def test_scores_in_something_else(wrap, part):
    with pytest.raises(ConfigError, match=part):
        check_network(Wrapped(wrap), TASK)
    scenes = Segmentation("abc", torch.zeros(2, 3, 32, 32))
    with pytest.raises(ConfigError, match=part):
        check_network(Wrapped(wrap), scenes)


def test_scores_in_something_else_while_it_trains_alone():
    network = Wrapped(lambda z, training: (z, z) if training else z)
    check_network(network, TASK)
    with pytest.raises(ConfigError, match="gives tuple while it trains and Tensor otherwise"):
        check_network(network, TASK, foreign=True)
    with pytest.raises(ConfigError, match="aux_logits=False"):
        selfdistill.wrap(network, "ce", example=TASK.example, classes=3)


@pytest.mark.slow
def test_auxiliary_outputs_of_torchvision():
    task = Classification("abc", torch.zeros(2, 3, 96, 96))
    for auxiliary in (True, False):
        network = googlenet(num_classes=3, aux_logits=auxiliary, init_weights=False)
        if auxiliary:
            with pytest.raises(ConfigError, match="GoogLeNetOutputs while it trains"):
                check_network(network, task, foreign=True)
        else:
            check_network(network, task, foreign=True)


def test_the_look_in_training_mode_changes_nothing():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(3600, 3)
    ).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    check_network(network, TASK, foreign=True)
    assert torch.equal(torch.rand(3), want)
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def test_a_transformer_names_the_size_that_it_is_built_for():
    network = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=48, depth=1)
    with pytest.raises(ConfigError, match="it is built for --image-size 48"):
        check_network(network, TASK)


def test_a_size_that_is_too_small_is_answered_by_a_larger_one():
    network = nn.Sequential(nn.Conv2d(3, 4, 40), nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ConfigError, match="try --image-size 64 or 224"):
        check_network(network, TASK)
