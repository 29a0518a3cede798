"""Standardized logits are for three classes or more."""

import pytest
import torch

from selfdistill.core import ConfigError
from selfdistill.modules.logit_checks import check_standardizable
from selfdistill.tasks import TASKS


@pytest.mark.parametrize("name", ["classification", "segmentation"])
def test_three_classes(name):
    check_standardizable(TASKS[name]("abc", torch.zeros(2, 3, 32, 32)))
    with pytest.raises(ConfigError, match="three classes or more"):
        check_standardizable(TASKS[name]("ab", torch.zeros(2, 3, 32, 32)))


def test_boxes_have_no_class_scores():
    with pytest.raises(ConfigError, match="unlike detection's; leave it out"):
        check_standardizable(TASKS["detection"]("abc", torch.zeros(2, 3, 32, 32)))
