"""MI and SI stage by stage: their names, means, sums and products."""

import pytest
import torch

from selfdistill.core import ConfigError, Progress
from selfdistill.modules.information import InformationEstimate
from selfdistill.modules.stagewise import StageInformation, powers_of

torch.manual_seed(0)
LOCAL = [torch.randn(6, 8, 2, 2).relu(), torch.randn(6, 8, 3, 3).relu()]
DEEP = [torch.randn(6, 5).relu(), torch.randn(6, 7).relu()]
CHOSEN = {"information": 0.1, "combine": "add", "estimator": "jsd"}
NOW = Progress(*map(torch.tensor, (0, 0, 3, 1000)))


def both(**powers: float) -> dict[str, float]:
    return {"mutual": 1.0, "self": 1.0} | powers


@pytest.mark.parametrize(
    ("mutual", "own", "keywords", "want"),
    [
        (1.0, 2.0, {}, {"mutual": 1.0, "self": 2.0}),
        (0.0, 2.0, {}, {"self": 2.0}),
        (1.0, 0.0, {"combine": "mul"}, {"mutual": 1.0}),
        (1.0, 2.0, {"information": 0.0}, {}),
    ],
)
def test_terms_without_weight_take_no_part(mutual, own, keywords, want):
    assert powers_of(mutual, own, **{**CHOSEN, **keywords}) == want


@pytest.mark.parametrize("estimator", ["dv", "nwj"])
def test_a_product_of_losses_that_may_be_negative_is_refused(estimator):
    assert powers_of(1, 1, **{**CHOSEN, "estimator": estimator})
    with pytest.raises(ConfigError, match=f"above zero, and '{estimator}'"):
        powers_of(1, 1, **{**CHOSEN, "estimator": estimator, "combine": "mul"})


def test_several_deep_features_count_by_their_mean():
    critics = StageInformation(both(), [8, 8], [5, 7])
    together = critics(LOCAL, DEEP, NOW)
    assert list(together) == ["mutual/1", "self/1", "mutual/2", "self/2"]
    for i, x in enumerate(LOCAL):
        shift = torch.tensor(1)  # of no use where all pairs are compared
        first = critics["mutual"][i](x, DEEP[0], shift)
        second = critics["mutual"][i + 2](x, DEEP[1], shift)
        got = together[f"mutual/{i + 1}"]
        torch.testing.assert_close(got.loss, (first.loss + second.loss) / 2)
        torch.testing.assert_close(got.score, (first.score + second.score) / 2)
        own = critics["self"][i](x, x.mean((2, 3)), shift)
        assert torch.equal(together[f"self/{i + 1}"].loss, own.loss)


def test_own_views_may_be_given():
    critics = StageInformation(both(), [8, 8], [5], own=[5, 5])
    found = critics(LOCAL, DEEP[:1], NOW, own=[DEEP[0], DEEP[0]])
    want = critics["self"][1](LOCAL[1], DEEP[0], torch.tensor(1)).loss
    assert torch.equal(found["self/2"].loss, want)


def estimate(value: float) -> InformationEstimate:
    return InformationEstimate(torch.tensor(value), torch.tensor(0.0))


def test_sum_and_product_by_hand():
    critics = StageInformation(both(mutual=2.0, self=0.5), [8], [5])
    found = {"mutual/1": estimate(3.0), "self/1": estimate(4.0)}
    added = critics.terms(found, combine="add", information=0.5)
    assert {name: term.item() for name, term in added.items()} == {"mutual/1": 3.0, "self/1": 1.0}
    multiplied = critics.terms(found, combine="mul", information=0.5)
    assert {name: term.item() for name, term in multiplied.items()} == {"product/1": 9.0}


def test_without_terms_there_is_nothing_to_learn():
    critics = StageInformation({}, [8, 8], [5])
    assert not list(critics.parameters())
    assert critics(LOCAL, DEEP[:1], NOW) == {}
    assert critics.terms({}, combine="mul", information=0.0) == {}


def test_one_image_has_no_other_to_differ_from():
    critics = StageInformation(both(), [8, 8], [5])
    with pytest.raises(ConfigError, match="second image"):
        critics([x[:1] for x in LOCAL], [DEEP[0][:1]], NOW)
