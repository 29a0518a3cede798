"""The information loss: its mean of critics, its start and its monitor."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.core import ConfigError
from selfdistill.modules.critics import CRITICS
from selfdistill.modules.mutual_information import ESTIMATORS, MutualInformationLoss

torch.manual_seed(0)
LOCAL, GLOB = torch.randn(6, 8, 2, 2).relu(), torch.randn(6, 5).relu()
SHIFT = torch.tensor(2)


@pytest.mark.parametrize("critic", sorted(CRITICS))
@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_loss_is_the_estimate_of_the_critic(critic, estimator):
    loss = MutualInformationLoss(
        8, 5, critic=critic, estimator=estimator, critic_width=16, negatives="roll"
    )
    scores = loss.local_critic(LOCAL, GLOB, SHIFT)
    estimate = loss(LOCAL, GLOB, SHIFT)
    torch.testing.assert_close(estimate.loss, ESTIMATORS[estimator](*scores))
    torch.testing.assert_close(estimate.score, scores.positive.abs().mean())
    assert not estimate.score.requires_grad


@pytest.mark.parametrize("share", [0.5, 1.0, 3.0])
def test_global_critic_weight_makes_a_weighted_mean(share):
    loss = MutualInformationLoss(8, 5, global_critic_weight=share)
    local = ESTIMATORS["jsd"](*loss.local_critic(LOCAL, GLOB))
    glob = ESTIMATORS["jsd"](*loss.global_critic(LOCAL, GLOB, SHIFT))
    want = (local + share * glob) / (1 + share)
    torch.testing.assert_close(loss(LOCAL, GLOB, SHIFT).loss, want)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 100), st.sampled_from(["all", "roll"]))
def test_chance_stays_chance_with_any_share(share, negatives):
    loss = MutualInformationLoss(8, 5, global_critic_weight=share, negatives=negatives)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.zero_()
    estimate = loss(LOCAL, GLOB, SHIFT)
    assert estimate.loss.item() == pytest.approx(2 * math.log(2), rel=1e-6)
    assert estimate.score.item() == 0


@pytest.mark.parametrize("critic", ["concat", "global"])
def test_all_pairs_are_refused_where_they_would_cost_too_much(critic):
    with pytest.raises(ConfigError, match="negatives='roll'"):
        MutualInformationLoss(8, 5, critic=critic, negatives="all")


def test_size_of_scores_leaves_out_what_is_no_pair():
    loss = MutualInformationLoss(8, 5)
    same_class = torch.eye(6, dtype=torch.bool)
    usual, masked = loss(LOCAL, GLOB, SHIFT), loss(LOCAL, GLOB, SHIFT, same_class)
    torch.testing.assert_close(masked.score, usual.score)
    torch.testing.assert_close(masked.loss, usual.loss)


def test_without_a_share_there_is_no_global_critic():
    assert MutualInformationLoss(8, 5).global_critic is None


def test_a_negative_share_is_refused():
    with pytest.raises(ConfigError, match=r"0 or more, not -0\.5"):
        MutualInformationLoss(8, 5, global_critic_weight=-0.5)


@pytest.mark.parametrize(("critic", "width"), [("separable", 128), ("concat", 512)])
def test_default_width_is_the_critics_own(critic, width):
    with torch.device("meta"):
        loss = MutualInformationLoss(8, 5, critic=critic)
        alone = CRITICS[critic](8, 5, width=width)
    assert sum(p.numel() for p in loss.parameters()) == sum(p.numel() for p in alone.parameters())


@pytest.mark.parametrize("negatives", ["all", "roll"])
def test_both_views_learn(negatives):
    local, glob = LOCAL.clone().requires_grad_(), GLOB.clone().requires_grad_()
    loss = MutualInformationLoss(8, 5, global_critic_weight=0.5, negatives=negatives)
    loss(local, glob, SHIFT).loss.backward()
    assert local.grad.abs().sum() > 0
    assert glob.grad.abs().sum() > 0


def test_loss_is_fp32_under_autocast():
    loss = MutualInformationLoss(8, 5, global_critic_weight=0.5)
    want = loss(LOCAL, GLOB, SHIFT).loss
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(LOCAL, GLOB, SHIFT).loss
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, atol=5e-3, rtol=0)  # bf16 has eight bits
