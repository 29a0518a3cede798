"""MI and SI stage by stage: their names, means and the product rule."""

import pytest
import torch

from selfdistill.core import ConfigError, Progress
from selfdistill.modules.information_checks import active_weights
from selfdistill.modules.mutual_information import StageInformation, product_rule

torch.manual_seed(0)
LOCAL = [torch.randn(6, 8, 2, 2).relu(), torch.randn(6, 8, 3, 3).relu()]
DEEP = [torch.randn(6, 5).relu(), torch.randn(6, 7).relu()]
OPTIONS = {"information_weight": 0.1, "combine": "add", "estimator": "jsd"}
PROGRESS = Progress(*map(torch.tensor, (0, 0, 3, 1000)))


def both(**weights: float) -> dict[str, float]:
    return {"mutual": 1.0, "self": 1.0} | weights


@pytest.mark.parametrize(
    ("mi_weight", "si_weight", "keywords", "want"),
    [
        (1.0, 2.0, {}, {"mutual": 1.0, "self": 2.0}),
        (0.0, 2.0, {}, {"self": 2.0}),
        (1.0, 0.0, {"combine": "mul"}, {"mutual": 1.0}),
        (1.0, 2.0, {"information_weight": 0.0}, {}),
    ],
)
def test_terms_without_weight_take_no_part(mi_weight, si_weight, keywords, want):
    assert active_weights(mi_weight, si_weight, **{**OPTIONS, **keywords}) == want


@pytest.mark.parametrize("estimator", ["dv", "nwj"])
def test_a_product_of_losses_that_may_be_negative_is_refused(estimator):
    assert active_weights(1, 1, **{**OPTIONS, "estimator": estimator})
    with pytest.raises(ConfigError, match=f"above zero, and '{estimator}'"):
        active_weights(1, 1, **{**OPTIONS, "estimator": estimator, "combine": "mul"})


def test_several_deep_features_count_by_their_mean():
    critics = StageInformation(both(), [8, 8], [5, 7])
    together = critics(LOCAL, DEEP, PROGRESS)
    assert [list(stage) for stage in together] == [["mutual", "self"]] * 2
    for i, x in enumerate(LOCAL):
        shift = torch.tensor(1)  # of no use where all pairs are compared
        first = critics["mutual"][i](x, DEEP[0], shift)
        second = critics["mutual"][i + 2](x, DEEP[1], shift)
        got = together[i]["mutual"]
        torch.testing.assert_close(got.loss, (first.loss + second.loss) / 2)
        torch.testing.assert_close(got.score, (first.score + second.score) / 2)
        si = critics["self"][i](x, x.mean((2, 3)), shift)
        assert torch.equal(together[i]["self"].loss, si.loss)


def test_vectors_of_self_information_may_be_given():
    critics = StageInformation(both(), [8, 8], [5], si_channels=[5, 5])
    stages = critics(LOCAL, DEEP[:1], PROGRESS, si_vectors=[DEEP[0], DEEP[0]])
    want = critics["self"][1](LOCAL[1], DEEP[0], torch.tensor(1)).loss
    assert torch.equal(stages[1]["self"].loss, want)


@pytest.mark.parametrize("weights", [{"mutual": 2.0, "self": 0.5}, {"self": 3.0}, both()])
def test_product_rule(weights):
    losses = {name: torch.tensor(value) for name, value in (("mutual", 0.7), ("self", 1.2))}
    losses = {name: losses[name].requires_grad_() for name in weights}
    product = torch.stack([loss ** weights[name] for name, loss in losses.items()]).prod()
    want = dict(zip(losses, torch.autograd.grad(product, list(losses.values())), strict=True))
    torch.testing.assert_close(product_rule(losses, weights), want)


def test_product_rule_of_losses_that_reached_zero():
    zero = {"mutual": torch.tensor(0.0), "self": torch.tensor(0.5)}
    assert product_rule(zero, both()) == {"mutual": 0.5, "self": 0.0}


def test_losses_are_those_of_the_critics_whatever_the_weights():
    critics = StageInformation(both(), [8, 8], [5])
    stages = critics(LOCAL, DEEP[:1], PROGRESS)
    for combine in ("add", "mul"):
        critics.weights, critics.combine = both(mutual=3.0), combine
        losses = critics.losses(critics(LOCAL, DEEP[:1], PROGRESS))
        assert list(losses) == ["mutual/1", "self/1", "mutual/2", "self/2"]
        assert torch.equal(losses["mutual/2"], stages[1]["mutual"].loss)


def test_without_terms_there_is_nothing_to_learn():
    critics = StageInformation({}, [8, 8], [5])
    assert not list(critics.parameters())
    stages = critics(LOCAL, DEEP[:1], PROGRESS)
    assert stages == [{}, {}]
    assert critics.losses(stages) == {}
