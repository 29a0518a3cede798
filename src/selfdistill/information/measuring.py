"""Critics trained on the features of networks that stay as they are, judged on held-out images."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count, islice

import torch
from torch import Tensor, nn

from ..core import Batch, ConfigError, DataError, DivergenceError
from ..core.keyed_random import bits, integers, permutation, purpose
from ..data import EvalLoader, ImageData, Loader
from ..data.hold_out import hold_out
from ..data.images import ImageFiles, ImageSet
from ..recipe.build import probe as check_input
from ..taps import Taps
from ..taps.fx_split import copy_without_hooks
from ..tasks import make_task
from .found import HELD_OUT, TRAINING, Information, Row, chance_of
from .plan import Plan, Subject
from .probe import Probe

_CRITICS, _NEGATIVES = purpose("information.critics"), purpose("information.negatives")
_JURY = purpose("information.held_out")
_MOST = 1024  # held-out images that every look takes
_LOOKS = 20  # at the held-out images

Watch = Callable[[str, int, int], None]
"""Is told network, seed and step after every step."""


def measure(
    networks: Mapping[str, nn.Module | Subject],
    data: ImageData,
    plan: Plan | None = None,
    *,
    watch: Watch | None = None,
) -> Information:
    """How much each module of a network tells of the last one (MI) and of itself (SI).

    A module is what lies before a tap. This is the measurement behind Figures 2 (d) and, with
    `trainable`, 2 (c) of MUSE (https://arxiv.org/abs/2110.12606): critics alone are trained on
    training images, and every 1/20 of the steps their losses on held-out images are noted. The
    networks see the same images in the same order, and critics of the same shape start from the
    same weights.

    Args:
        networks: by the name to be shown; none of them is changed.
        data: whose validation images are held out; without any its test images are, and without
            those a tenth of its training images.
        plan: how the critics are trained.
        watch: is told of every step.

    Raises:
        ConfigError: a network has fewer than two taps, or cannot take these images.
        DataError: there are too few images.
        DivergenceError: a loss is not finite.
    """
    plan = plan or Plan()
    train, held, what = _parts(data)
    size = min(plan.batch_size, len(train), len(held))
    if size < 2:
        raise DataError(
            f"a critic compares images, and '{data.name}' has {len(train)} to train and "
            f"{len(held)} to hold out; give two or more of each"
        )
    held = held.take(torch.arange(len(held) // size * size))
    plan = replace(plan, batch_size=size)
    rows: list[Row] = []
    taps: dict[str, tuple[str, ...]] = {}
    for name, given in networks.items():
        subject = given if isinstance(given, Subject) else Subject(given)
        for seed in plan.seeds:
            session = _Session(name, subject, data, plan, seed)
            taps[name] = session.taps.names
            rows += session.run(train, held, watch)
    everything = plan.critic == "separable"  # it scores all pairs
    return Information(
        rows=rows,
        taps=taps,
        chance=chance_of(plan.estimator, size - 1 if everything else 1),
        held_out=f"{len(held):,} {what}",
        plan=plan,
    )


def _parts(data: ImageData) -> tuple[ImageSet, ImageSet, str]:
    """Images to train critics on, images to judge them by, and what those are.

    In files classes lie one after the other: the held-out images are mixed, or a critic would be
    shown negatives of one class.
    """
    train, held, what = data.train, data.val, "validation images"
    if held is None and data.test is not None:
        held, what = data.test, "test images"
    if held is None:
        if len(train) < 4:
            raise DataError(f"'{data.name}' has {len(train)} images, too few to hold some out")
        train, held = hold_out(train, max(2, len(train) // 10), "information")
        what = "training images of the network, held out from the critics"
    held = held.take(permutation(len(held), _JURY, 0)[:_MOST])
    if isinstance(held, ImageFiles):  # they are looked at many times
        held = held.load_into_memory()
    return train, held, what


class _Session:
    """One network, one seed."""

    def __init__(self, name: str, subject: Subject, data: ImageData, plan: Plan, seed: int) -> None:
        self.name, self.plan, self.seed, self.data = name, plan, seed, data
        self.device = torch.device(plan.device)
        self.pixels = (subject.mean or data.mean, subject.std or data.std)
        network = copy_without_hooks(subject.network).cpu()
        example = torch.zeros(2, *data.train.shape)
        check_input(network, example)
        self.taps = Taps(network, subject.taps, example=example)
        if len(self.taps.names) < 2:
            raise ConfigError(
                f"{name} is tapped at one module and information needs two, which it is about and "
                "which it is in; `selfdistill taps MODEL` lists them"
            )
        self.task = make_task(data.task, data.classes, data.train.shape)
        if plan.trainable:
            self.task.check(network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(bits(_CRITICS, seed)))
            self.probe = Probe(
                list(self.taps.shapes.values()),
                critic=plan.critic,
                width=plan.width,
                estimator=plan.estimator,
                frozen=not plan.trainable,
            )
        self.taps.to(self.device).train(plan.trainable)
        self.probe.to(self.device)

    def run(self, train: ImageSet, held: ImageSet, watch: Watch | None) -> list[Row]:
        """Train the critics; the rows of every look at the held-out images."""
        plan = self.plan
        groups = [{"params": list(self.probe.parameters()), "lr": plan.lr}]
        if plan.trainable:  # a network that is trained already is not to be thrown off
            groups.append({"params": list(self.taps.parameters()), "lr": plan.lr / 10})
        optimizer = torch.optim.Adam(groups)
        falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / plan.steps)
        looks = {round(plan.steps * look / _LOOKS) for look in range(1, _LOOKS + 1)}
        jury = self._jury(held)
        rows: list[Row] = []
        since: list[dict[str, Tensor]] = []
        for step, batch in enumerate(islice(self._batches(train), plan.steps), 1):
            losses = self._losses(batch, step)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            falling.step()
            since.append({term: losses[term].detach() for term in self.probe.pairs})
            if step in looks:
                rows += self._rows(step, TRAINING, since)
                rows += self._rows(step, HELD_OUT, self._judged(jury))
                since = []
            if watch:
                watch(self.name, self.seed, step)
        return rows

    def _batches(self, train: ImageSet) -> Iterator[Batch]:
        mean, std = self.pixels
        loader = Loader(
            train,
            batch_size=self.plan.batch_size,
            seed=self.seed,
            mean=mean,
            std=std,
            crop_padding=self.data.crop_padding,
            flip=self.data.flip,
            resized_crop=self.data.resized_crop,
            device=self.device,
            workers=self.plan.workers,
        )
        return (batch for epoch in count() for (batch,) in loader.epoch(epoch))

    def _jury(self, held: ImageSet) -> EvalLoader:
        mean, std = self.pixels
        return EvalLoader(
            held, batch_size=self.plan.batch_size, mean=mean, std=std, device=self.device
        )

    def _losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """What is lowered: the critics' losses, and the supervised one if the network moves."""
        shift = self._shift(step)
        if not self.plan.trainable:
            with torch.no_grad():
                _, features = self.taps.forward_features(batch.inputs)
            return self.probe(list(features.values()), shift)  # type: ignore[no-any-return]
        out, features = self.taps.forward_features(batch.inputs)
        losses: dict[str, Tensor] = self.probe(list(features.values()), shift)
        return losses | {"task": self.task.loss(out, batch.targets)}

    @torch.no_grad()
    def _judged(self, jury: EvalLoader) -> list[dict[str, Tensor]]:
        """The losses of every held-out batch."""
        self.taps.eval()
        self.probe.eval()
        found = []
        for place, batch in enumerate(jury):
            _, features = self.taps.forward_features(batch.inputs)
            found.append(self.probe(list(features.values()), self._shift(-1 - place)))
        self.taps.train(self.plan.trainable)
        self.probe.train()
        return found

    def _shift(self, key: int) -> Tensor:
        return 1 + integers(self.plan.batch_size - 1, _NEGATIVES, self.seed, key).to(self.device)

    def _rows(self, step: int, split: str, losses: list[dict[str, Tensor]]) -> list[Row]:
        means = {t: float(torch.stack([each[t] for each in losses]).mean()) for t in losses[0]}
        for term, mean in means.items():
            if not math.isfinite(mean):
                raise DivergenceError(
                    f"the loss {term} of {self.name} is no longer finite at step {step}; "
                    "lower --lr, or take the estimator 'jsd', which is the most stable"
                )
        return [Row(self.name, self.seed, step, term, split, mean) for term, mean in means.items()]
