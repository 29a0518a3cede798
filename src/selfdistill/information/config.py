"""Configuration of a measurement: the networks, and the training of the critics."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..core import ConfigError, nearest
from ..modules.critics import CRITICS
from ..modules.mutual_information import ESTIMATORS


@dataclass(frozen=True)
class NetworkUnderTest:
    """A network to be measured.

    Attributes:
        network: any module; a copy of it is measured.
        taps: names of the taps at which its modules end, or "auto", see `find_taps`.
        mean, std: normalization of its pixels in [0, 1], one number a channel; None is the data's.
        bottlenecks: of its trained exits, one for every tap but the last; its modules then end
            behind them. None is at the taps.
    """

    network: nn.Module
    taps: str | Sequence[str] = "auto"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bottlenecks: Sequence[nn.Module] | None = None


@dataclass(frozen=True)
class EstimatorConfig:
    """Training of the critics; the same for all networks.

    Attributes:
        steps: steps of Adam, whose learning rate falls linearly to zero.
        seeds: of critics, order of the images and negatives; each measures every network once.
        batch_size: images of a step; fewer where the data have fewer.
        lr: initial learning rate.
        critic, width, estimator: see `MutualInformationLoss`.
        trainable: train a copy of each network too, by its supervised loss and the losses of MI.
        device: a device, or auto, cpu, cuda or mps.
        workers: number of processes that decode images.
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
        for name, value, choices in (
            ("critic", self.critic, CRITICS),
            ("estimator", self.estimator, ESTIMATORS),
        ):
            if value not in choices:
                raise ConfigError(f"there is no {name} '{value}'{nearest(value, choices)}")
        if self.batch_size < 2:
            raise ConfigError(
                f"a critic compares images, so batch_size must be 2 or more, not {self.batch_size}"
            )
        if self.steps < 1 or not self.lr > 0 or not self.seeds:
            raise ConfigError(
                f"steps={self.steps}, lr={self.lr:g} and seeds={list(self.seeds)} must be 1 or "
                "more, above 0, and one or more"
            )
