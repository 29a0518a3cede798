"""Void pixels: no loss towards another head's outputs counts them."""

import pytest
import torch
from contract_cases import defaults, moment

from selfdistill.core import IGNORE, METHODS, options

SEGMENTATION = defaults("segmentation")
# of all methods that compare outputs; snapshot and ttm have losses of their own, which they test
SOFT = [
    case._replace(options={**case.options, "soft_weight": 1.0})
    for case in SEGMENTATION
    if "soft_weight" in options(METHODS[case.name]) and case.name not in ("snapshot", "ttm")
]


@pytest.mark.parametrize("case", SOFT, ids=str)
def test_every_soft_loss_gets_the_mask_of_the_labels(case, monkeypatch):
    method, batch = case.method(), case.batch()
    batch.targets[:, :8] = IGNORE
    masks, soft_loss = [], type(method.task).soft_loss

    def recorded(task, *arguments, mask=None):
        masks.append(mask)
        return soft_loss(task, *arguments, mask=mask)

    monkeypatch.setattr(type(method.task), "soft_loss", recorded)
    method(batch, moment(500))
    assert masks
    for mask in masks:
        assert not mask[:, :8].any()
        assert torch.equal(mask[:, 8:], batch.targets[:, 8:] != IGNORE)


@pytest.mark.parametrize("case", SEGMENTATION, ids=str)
def test_a_batch_without_a_label_is_no_fault(case):
    method, batch = case.method(), case.batch()
    batch.targets.fill_(IGNORE)
    losses = method(batch, moment(500)).losses
    assert all(loss.isfinite() for loss in losses.values())
