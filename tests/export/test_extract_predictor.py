"""Predictors taken out: the same logits, and nothing left of what trained them."""

import pytest
import torch
from torch import nn

from selfdistill.core import ConfigError
from selfdistill.export.extract_predictor import extract_predictor
from selfdistill.recipe.build_method import build_method


@pytest.fixture
def method(tiny_net, tiny_task):
    built = build_method("muse", tiny_net, tiny_task, "stage1,stage2,stage3,stage4", {})
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return built.eval()


@pytest.mark.parametrize("name", ["exit1", "exit2", "exit3", "student"])
def test_logits_to_the_last_bit(name, method):
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(extract_predictor(method, name)(x), method.predict(x)[name])


@pytest.mark.parametrize("name", ["exit2", "student"])
def test_nothing_watches_it(name, method):
    taken = extract_predictor(method, name)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in taken.modules())
    assert not {id(p) for p in taken.parameters()} & {id(p) for p in method.parameters()}


def test_the_tail_is_gone(method):
    names = [name for name, _ in extract_predictor(method, "exit2").named_parameters()]
    assert any("stage2" in name for name in names)
    assert not any("stage3" in name or "fc" in name.split(".")[0] for name in names)


def test_a_name_that_is_none(method):
    with pytest.raises(ConfigError, match="did you mean 'exit3'"):
        extract_predictor(method, "exit5")
    with pytest.raises(ConfigError, match="no predictor 'zebra'"):
        extract_predictor(method, "zebra")
