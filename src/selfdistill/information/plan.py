"""What is measured, and how."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from ..core import ConfigError, nearest
from ..modules.mutual_information import CRITICS, ESTIMATORS


class Subject(NamedTuple):
    """A network to be measured.

    Attributes:
        network: any module; what is measured is a copy of it.
        taps: where its modules end, see `find_taps`; "auto" or names.
        mean, std: one number a channel, of the pixels in [0, 1] that it takes; None is the data's.
    """

    network: nn.Module
    taps: str | Sequence[str] = "auto"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """How the critics are trained; the same for all networks.

    Attributes:
        steps: of Adam, whose rate falls to zero along a straight line.
        seeds: of critics, order of the images and negatives; each measures every network once.
        batch_size: images a step; fewer where the data have fewer.
        lr: the highest learning rate.
        critic, width, estimator: see `InformationLoss`.
        trainable: train a copy of each network along, by its supervised loss and the losses of MI.
        device, workers: where, and how many processes decode pictures.
    """

    steps: int = 400
    seeds: Sequence[int] = (0,)
    batch_size: int = 128
    lr: float = 5e-3
    critic: str = "separable"
    width: int | None = None
    estimator: str = "jsd"
    trainable: bool = False
    device: str | torch.device = "cpu"
    workers: int = 2

    def __post_init__(self) -> None:
        for word, value, choices in (
            ("critic", self.critic, CRITICS),
            ("estimator", self.estimator, ESTIMATORS),
        ):
            if value not in choices:
                raise ConfigError(f"there is no {word} '{value}'{nearest(value, choices)}")
        if self.steps < 1 or not self.lr > 0 or not self.seeds:
            raise ConfigError(
                f"steps={self.steps}, lr={self.lr:g} and seeds={list(self.seeds)} must be 1 or "
                "more, above 0, and one or more"
            )
