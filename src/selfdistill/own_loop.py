"""A method as a loss, for training loops that are not ours."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .core import METHODS, Batch, Method, Progress, Step
from .recipe.build import make_method
from .recipe.schema import check_options
from .tasks import Classification

_ENDLESS = 1 << 60  # steps: a run that never gets anywhere


class Lesson(nn.Module):
    """A method that is called like a loss: ``loss = lesson(images, labels)``.

    It owns everything that trains: give `lesson.parameters()` to the optimiser and save
    `lesson.state_dict()`. The step count is part of that state.

    Args:
        method: as `make_method` builds it.
        seed: of the method's own draws.
        total_steps: how long training will be, for methods whose weights change over it.

    Attributes:
        method: what is taught.
        last: outputs, named terms and monitors of the latest call, for logging.
    """

    step: Tensor
    last: Step

    def __init__(self, method: Method, *, seed: int = 0, total_steps: int | None = None) -> None:
        super().__init__()
        self.method, self.seed, self.total_steps = method, seed, total_steps or _ENDLESS
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor, labels: Any) -> Tensor:
        """The loss of a batch: images (B, C, H, W) and what the task takes as labels.

        The optimiser's step on the batch before counts as done: in training mode, what the
        method does after a step happens at the start of the next call.
        """
        index = torch.arange(len(images), device=images.device)
        if self.training and self.step > 0:
            self.method.after_step(self._now(images, self.step - 1))
        self.last = self.method(Batch(images, labels, index), self._now(images, self.step))
        if self.training:
            self.step += 1
        return self.last.total

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
        taps: where to read features, see `find_taps`.
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
    task.check(network)
    chosen = check_options(METHODS[method], method, options)
    built = make_method(method, network, task, taps, chosen)
    device = next((p.device for p in network.parameters()), example.device)
    return Lesson(built, seed=seed, total_steps=total_steps).to(device)
