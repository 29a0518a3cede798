"""MI and SI stage by stage: their names, means, sums and products."""

import pytest
import torch

from selfdistill.core import ConfigError, Progress
from selfdistill.modules.information_checks import active_weights
from selfdistill.modules.mutual_information import (
    InformationEstimate,
    StageInformation,
    weighted_product,
    weighted_sum,
)

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


def estimate(value: float) -> InformationEstimate:
    return InformationEstimate(torch.tensor(value), torch.tensor(0.0))


def test_sum_and_product_by_hand():
    weights = both(mutual=2.0, self=0.5)
    stages = [{"mutual": estimate(3.0), "self": estimate(4.0)}]
    added = weighted_sum(stages, weights, 0.5)
    assert {name: term.item() for name, term in added.items()} == {"mutual/1": 3.0, "self/1": 1.0}
    multiplied = weighted_product(stages, weights, 0.5)
    assert {name: term.item() for name, term in multiplied.items()} == {"product/1": 9.0}


def test_without_terms_there_is_nothing_to_learn():
    critics = StageInformation({}, [8, 8], [5])
    assert not list(critics.parameters())
    stages = critics(LOCAL, DEEP[:1], PROGRESS)
    assert stages == [{}, {}]
    assert weighted_sum(stages, {}, 0.0) == weighted_product(stages, {}, 0.0) == {}
