"""A method as a loss, for training loops that are not ours."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Batch, ConfigError, Method, Progress, Step
from ..recipe.making import make_method
from ..recipe.options import check_options, parts_of
from ..tasks import Classification

_ENDLESS = 1 << 60  # steps: a run that never gets anywhere


class Lesson(nn.Module):
    """A method that is called like a loss: ``loss = lesson(images, labels)``.

    It owns everything that trains: give `lesson.parameters()` to the optimiser and save
    `lesson.state_dict()`. The step count is part of that state.

    Args:
        method: as `make_method` builds it.
        seed: of the method's own draws.
        total_steps: how long training will be, for methods whose weights change over it.
        indexed: whether calls must say which images they bring.

    Attributes:
        method: what is taught.
        last: outputs, named terms and monitors of the latest call, for logging.
    """

    step: Tensor
    last: Step

    def __init__(
        self,
        method: Method,
        *,
        seed: int = 0,
        total_steps: int | None = None,
        indexed: bool = False,
    ) -> None:
        super().__init__()
        self.indexed = indexed
        self.method, self.seed, self.total_steps = method, seed, total_steps or _ENDLESS
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        images: Tensor,
        labels: Any,
        *,
        index: Tensor | None = None,
        views: Sequence[Tensor] = (),
        partners: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch: images (B, C, H, W) and what the task takes as labels.

        The optimiser's step on the batch before counts as done: in training mode, what the
        method does after a step happens at the start of the next call.

        Args:
            images, labels: the batch.
            index: place of each image in the training set, (B,), for methods that keep something
                for each of them.
            views: further augmentations of the same images, for methods that compare views.
            partners: for each image another one of its class, for methods that compare those.

        Raises:
            ConfigError: the method needs one of the last three and it is missing.
        """
        self._check(index, views, partners)
        if index is None:
            index = torch.arange(len(images), device=images.device)
        if self.training and self.step > 0:
            self.method.after_step(self._now(images, self.step - 1))
        batch = Batch(images, labels, index, tuple(views), partners)
        self.last = self.method(batch, self._now(images, self.step))
        if self.training:
            self.step += 1
        return self.last.total

    def _check(
        self, index: Tensor | None, views: Sequence[Tensor], partners: Tensor | None
    ) -> None:
        needs = self.method.needs
        if len(views) + 1 < needs.views:
            raise ConfigError(
                f"this method compares {needs.views} augmentations of each image: "
                f"call lesson(images, labels, views=[...]) with {needs.views - 1} more"
            )
        if needs.partners and partners is None:
            raise ConfigError(
                "this method compares images of one class: call lesson(images, labels, "
                "partners=...) with another image of the same class for each"
            )
        if self.indexed and index is None:
            raise ConfigError(
                "this method remembers every image: call lesson(images, labels, index=...) with "
                "its place in the training set"
            )

    def predict(self, images: Tensor) -> dict[str, Any]:
        """The output of every exit and of the student."""
        return self.method.predict(images)

    def _now(self, images: Tensor, step: Tensor) -> Progress:
        seed, total = torch.full_like(step, self.seed), torch.full_like(step, self.total_steps)
        return Progress(seed, torch.zeros_like(step), step.clone(), total)


def wrap(
    network: nn.Module,
    method: str,
    *,
    example: Tensor,
    classes: int | Sequence[str],
    taps: str | Sequence[str] = "auto",
    teacher: nn.Module | None = None,
    teacher_taps: str | Sequence[str] = "auto",
    peers: Sequence[nn.Module] = (),
    train_labels: Tensor | None = None,
    seed: int = 0,
    total_steps: int | None = None,
    **options: Any,
) -> Lesson:
    """Put a method around a classifier, to be trained in a loop of one's own.

    Args:
        network: trained in place; afterwards the improved network, with its own keys.
        method: a name; `selfdistill methods` lists them.
        example: two images as the network takes them, (2, C, H, W).
        classes: how many, or their names.
        taps, teacher_taps: where to read features, see `find_taps`.
        teacher: for methods that learn from one; left as it is.
        peers: networks that are trained along, for methods that train several.
        train_labels: of all training images, (N,), for methods that remember every image.
        seed: of the method's own draws.
        total_steps: how long training will be, for methods whose weights change over it.
        options: the method's own keywords.

    Returns:
        A module to call as a loss, on the network's device.

    Raises:
        ConfigError: an unknown method or option, or a network whose outputs do not fit the classes.

    Example:
        >>> network = nn.Sequential(
        ...     nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        ...     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        >>> images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> lesson = wrap(network, "muse", example=images, classes=10, taps="1,3")
        >>> optimiser = torch.optim.SGD(lesson.parameters(), lr=0.1)
        >>> lesson(images, labels).backward()
    """
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
    task = Classification(names, example)
    for each in (network, *peers, *([teacher] if teacher else [])):
        task.check(each)
    built = make_method(
        method,
        network,
        task,
        taps,
        check_options(method, options),
        teacher=teacher,
        teacher_taps=teacher_taps,
        peers=peers,
        train_labels=train_labels,
    )
    device = next((p.device for p in network.parameters()), example.device)
    wants = (inspect.signature(cls).parameters for cls in parts_of(method).values())
    indexed = any("train_labels" in parameters for parameters in wants)
    return Lesson(built, seed=seed, total_steps=total_steps, indexed=indexed).to(device)
