"""Estimation of information: critics trained on features of frozen networks, then evaluated."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count, islice, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Batch, ConfigError, DataError, DivergenceError
from ..core.keyed_random import bits, integers, permutation, purpose
from ..data import EvalLoader, ImageData, Loader
from ..data.hold_out import hold_out
from ..data.image_set import ImageSet
from ..data.images import ImageFiles
from ..recipe.data_check import in_channels
from ..recipe.make_fabric import make_fabric
from ..recipe.schema import parse
from ..taps import Taps, example_output
from ..taps.fx_split import copy_without_hooks
from ..taps.stage_detection import evaluation_mode
from ..tasks import make_task
from .config import EstimatorConfig, NetworkUnderTest
from .probe_critics import ProbeCritics, Shape
from .results import HELD_OUT, TRAINING, CriticLoss, InformationResult, chance_loss

_CRITICS, _NEGATIVES = purpose("information.critics"), purpose("information.negatives")
_HELD_OUT_ORDER = purpose("information.held_out")
_MAX_HELD_OUT = 1024  # images of each evaluation
_NUM_EVALUATIONS = 20  # on the held-out images


class InformationCallback:
    """Events of a measurement; a subclass overrides those it needs."""

    def on_step(self, network: str, seed: int, step: int) -> None:
        """After a training step of the critics."""


def estimate_information(
    networks: Mapping[str, nn.Module | NetworkUnderTest],
    data: ImageData,
    config: EstimatorConfig | None = None,
    *,
    callback: InformationCallback | None = None,
) -> InformationResult:
    """Estimate the information of each module about the last one (MI) and about itself (SI).

    A module is the part of a network before a tap, and the bottleneck behind it if the network
    comes with its bottlenecks. This is the measurement behind Figures 2 (d) and, with `trainable`,
    2 (c) of MUSE (https://arxiv.org/abs/2110.12606): critics alone are trained on training images,
    and every 1/20 of the steps they are evaluated on held-out images. The networks see the same
    images in the same order, and critics of the same shape start from the same weights.

    Args:
        networks: by the name to be shown; none of them is changed.
        data: its validation images are held out; without any its test images are, and without
            those a tenth of its training images.
        config: training of the critics.
        callback: is told every step.

    Raises:
        ConfigError: a network has fewer than two taps, or cannot take these images.
        DataError: there are too few images.
        DivergenceError: a loss is not finite.
    """
    config, callback = config or EstimatorConfig(), callback or InformationCallback()
    if isinstance(config.device, str):
        config = replace(config, device=make_fabric(parse({"device": config.device})).device)
    train, held_out, kind = _split(data)
    batch_size = min(config.batch_size, len(train), len(held_out))
    if batch_size < 2:
        raise DataError(
            f"a critic compares images, and '{data.name}' has {len(train)} to train and "
            f"{len(held_out)} to hold out; give two or more of each"
        )
    held_out = held_out.take(torch.arange(len(held_out) // batch_size * batch_size))
    config = replace(config, batch_size=batch_size)
    rows: list[CriticLoss] = []
    taps: dict[str, tuple[str, ...]] = {}
    for name, network in networks.items():
        if isinstance(network, nn.Module):
            network = NetworkUnderTest(network)
        for seed in config.seeds:
            training = _CriticTraining(name, network, data, config, seed)
            taps[name] = training.modules
            rows += training.run(train, held_out, callback)
    all_pairs = config.critic == "separable"  # it scores all pairs of a batch
    return InformationResult(
        rows=rows,
        taps=taps,
        chance=chance_loss(config.estimator, batch_size - 1 if all_pairs else 1),
        held_out=f"{len(held_out):,} {kind}",
        config=config,
    )


def _split(data: ImageData) -> tuple[ImageSet, ImageSet, str]:
    """Images to train critics on, images to evaluate them on, and the kind of the latter.

    In files classes lie one after the other: the held-out images are shuffled, or a critic would
    be shown negatives of one class.
    """
    train, held_out, kind = data.train, data.val, "validation images"
    if held_out is None and data.test is not None:
        held_out, kind = data.test, "test images"
    if held_out is None:
        if len(train) < 4:
            raise DataError(f"'{data.name}' has {len(train)} images, too few to hold some out")
        train, held_out = hold_out(train, max(2, len(train) // 10), "information")
        kind = "training images of the network, held out from the critics"
    held_out = held_out.take(permutation(len(held_out), _HELD_OUT_ORDER, 0)[:_MAX_HELD_OUT])
    if isinstance(held_out, ImageFiles):  # they are read many times
        held_out = held_out.load_into_memory()
    return train, held_out, kind


class _CriticTraining:
    """Training of the critics of one network with one seed."""

    def __init__(
        self,
        name: str,
        network: NetworkUnderTest,
        data: ImageData,
        config: EstimatorConfig,
        seed: int,
    ) -> None:
        if network.mean:
            data = in_channels(data, len(network.mean))
        self.name, self.config, self.seed, self.data = name, config, seed, data
        self.device = torch.device(config.device)
        self.mean, self.std = network.mean or data.mean, network.std or data.std
        copy = copy_without_hooks(network.network).cpu()
        example = torch.zeros(2, *data.train.shape)
        output = example_output(copy, example)
        self.taps = Taps(copy, network.taps, example=example)
        if len(self.taps.names) < 2:
            raise ConfigError(
                f"{name} is tapped at one module and information needs two, which it is about and "
                "which it is in; `selfdistill taps MODEL` lists them"
            )
        copies = map(copy_without_hooks, network.bottlenecks or ())
        self.bottlenecks = nn.ModuleList(copies).cpu()  # the example is there
        if self.bottlenecks and len(self.bottlenecks) != len(self.taps.names) - 1:
            raise ConfigError(
                f"{name} has {len(self.bottlenecks)} bottlenecks for {len(self.taps.names)} taps; "
                "there is one for every tap but the last: measure it at the taps of its run"
            )
        self.task = make_task(data.task, data.classes, data.train.shape)
        if config.trainable:
            self.task.check_output(copy, output)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(bits(_CRITICS, seed)))
            self.critics = ProbeCritics(
                self._shapes(example),
                critic=config.critic,
                width=config.width,
                estimator=config.estimator,
                frozen=not config.trainable,
            )
        self.network = nn.ModuleList([self.taps, self.bottlenecks])
        self.network.to(self.device).train(config.trainable)
        self.critics.to(self.device)

    @property
    def modules(self) -> tuple[str, ...]:
        """Where the modules end."""
        ends = [" bottleneck"] * len(self.bottlenecks)
        names = self.taps.names
        return tuple(map("".join, zip_longest(names, ends, fillvalue="")))

    def _shapes(self, example: Tensor) -> list[Shape]:
        """(C, H, W) of the features of all modules, of clips (C, T, H, W)."""
        with evaluation_mode(self.taps), evaluation_mode(self.bottlenecks):
            _, features, _ = self._features(example)
        return [tuple(x.shape[1:]) for x in features]

    def _features(self, inputs: Tensor) -> tuple[Any, list[Tensor], Tensor]:
        """The network's output, every module's feature, and the last one as (B, C)."""
        output, by_tap, pooled = self.taps.forward_pooled(inputs)
        features = list(by_tap.values())
        for i, bottleneck in enumerate(self.bottlenecks):
            features[i] = bottleneck(features[i])
        return output, features, pooled

    def run(
        self, train: ImageSet, held_out: ImageSet, callback: InformationCallback
    ) -> list[CriticLoss]:
        """Train the critics; returns their losses at every evaluation."""
        channels = self.data.train.shape[0]
        train, held_out = train.with_channels(channels), held_out.with_channels(channels)
        steps = self.config.steps
        optimizer = self._optimizer()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / steps)
        numbers = range(1, _NUM_EVALUATIONS + 1)
        eval_steps = {round(steps * number / _NUM_EVALUATIONS) for number in numbers}
        heldout_loader = self._heldout_loader(held_out)
        rows: list[CriticLoss] = []
        train_losses: list[dict[str, Tensor]] = []  # since the last evaluation
        for step, batch in enumerate(islice(self._batches(train), steps), 1):
            losses = self._losses(batch, step)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            schedule.step()
            train_losses.append({term: losses[term].detach() for term in self.critics.pairs})
            if step in eval_steps:
                rows += self._mean_losses(step, TRAINING, train_losses)
                rows += self._mean_losses(step, HELD_OUT, self._evaluate(heldout_loader))
                train_losses = []
            callback.on_step(self.name, self.seed, step)
        return rows

    def _optimizer(self) -> torch.optim.Adam:
        config = self.config
        groups = [{"params": list(self.critics.parameters()), "lr": config.lr}]
        if config.trainable:  # the network is trained already, and is to change slowly
            groups.append({"params": list(self.network.parameters()), "lr": config.lr / 10})
        return torch.optim.Adam(groups)

    def _batches(self, train: ImageSet) -> Iterator[Batch]:
        loader = Loader(
            train,
            batch_size=self.config.batch_size,
            seed=self.seed,
            mean=self.mean,
            std=self.std,
            crop_padding=self.data.crop_padding,
            flip=self.data.flip,
            resized_crop=self.data.resized_crop,
            color_jitter=self.data.color_jitter,
            device=self.device,
            workers=self.config.workers,
        )
        return (batch for epoch in count() for (batch,) in loader.epoch(epoch))

    def _heldout_loader(self, held_out: ImageSet) -> EvalLoader:
        return EvalLoader(
            held_out,
            batch_size=self.config.batch_size,
            mean=self.mean,
            std=self.std,
            device=self.device,
        )

    def _losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Losses to minimize: the critics', and the supervised one of a trainable network."""
        shift = self._shift(step)
        if not self.config.trainable:
            with torch.no_grad():
                _, features, pooled = self._features(batch.inputs)
            return self.critics(features, pooled, shift)  # type: ignore[no-any-return]
        output, features, pooled = self._features(batch.inputs)
        losses: dict[str, Tensor] = self.critics(features, pooled, shift)
        return losses | {"task": self.task.loss(output, batch.targets)}

    @torch.no_grad()
    def _evaluate(self, heldout_loader: EvalLoader) -> list[dict[str, Tensor]]:
        """Losses of every held-out batch."""
        self.network.eval()
        self.critics.eval()
        losses = []
        for i, batch in enumerate(heldout_loader):
            _, features, pooled = self._features(batch.inputs)
            losses.append(self.critics(features, pooled, self._shift(-1 - i)))
        self.network.train(self.config.trainable)
        self.critics.train()
        return losses

    def _shift(self, key: int) -> Tensor:
        draw = integers(self.config.batch_size - 1, _NEGATIVES, self.seed, key)
        return 1 + draw.to(self.device)

    def _mean_losses(
        self, step: int, split: str, batches: list[dict[str, Tensor]]
    ) -> list[CriticLoss]:
        means = {
            term: float(torch.stack([losses[term] for losses in batches]).mean())
            for term in batches[0]
        }
        for term, mean in means.items():
            if not math.isfinite(mean):
                raise DivergenceError(
                    f"the loss {term} of {self.name} is no longer finite at step {step}; "
                    "lower --lr, or take the estimator 'jsd', which is the most stable"
                )
        return [
            CriticLoss(self.name, self.seed, step, term, split, mean)
            for term, mean in means.items()
        ]
