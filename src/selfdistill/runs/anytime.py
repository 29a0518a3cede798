"""A run's network with its exits, computing each image only until an exit is confident."""

from collections.abc import Iterable

import torch

from ..core import DataError, Method
from ..data import ImageData
from ..early_exit.network import (
    EarlyExitNetwork,
    build_early_exit_network,
    check_image_labels,
    collect_exit_decisions,
    early_exits,
    exit_costs,
)
from ..early_exit.thresholds import Threshold, as_thresholds, calibrate_thresholds


def early_exit_network(
    method: Method,
    data: ImageData,
    threshold: Threshold | Iterable[Threshold] = None,
    *,
    max_loss: float,
    num_workers: int,
) -> EarlyExitNetwork:
    """The network of `Run.anytime`, its thresholds given or chosen on validation images."""
    check_image_labels(data.task)
    exits = list(early_exits(method))
    if threshold is not None:
        return build_early_exit_network(method, as_thresholds(threshold, exits))
    if data.val is None:
        raise DataError(
            "thresholds are chosen on validation images, and the run held none out; give a "
            "threshold"
        )
    decisions = collect_exit_decisions(method, data, data.val, workers=num_workers)
    costs = exit_costs(method, torch.zeros(1, *data.train.shape))
    thresholds = calibrate_thresholds(decisions, costs, max_loss)
    return build_early_exit_network(method, thresholds)
