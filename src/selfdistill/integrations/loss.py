"""A method as a loss, for training loops that are not ours."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Batch, ConfigError, Method, Progress, StepOutput, Task, nearest
from ..engine.state import student_prefix
from ..recipe.build_method import build_method
from ..recipe.options import check_options, method_classes
from ..tasks import TASKS

_ENDLESS = 1 << 60  # steps: a run that never gets anywhere


class DistillationLoss(nn.Module):
    """A method that is called like a loss: ``loss = criterion(images, labels)``.

    It owns everything that trains: give `criterion.parameters()` to the optimizer and save
    `criterion.state_dict()`. The step count is part of that state.

    Each call in training mode is one step. What a method does after a step (memories, snapshots) is
    done when the next call comes or the state is asked for, by when the optimizer has moved.

    Args:
        method: as `build_method` builds it.
        task: what the labels mean.
        seed: of the method's own draws.
        total_steps: how many calls training will take, for methods whose weights change over it.
        indexed: whether calls must say which images they bring.

    Attributes:
        method, task: as they were given.
        last: outputs, named terms and monitors of the latest call, detached, for logging.
    """

    step: Tensor
    last: StepOutput

    def __init__(
        self,
        method: Method,
        task: Task,
        *,
        seed: int = 0,
        total_steps: int | None = None,
        indexed: bool = False,
    ) -> None:
        super().__init__()
        self.method, self.task = method, task
        self.seed, self.total_steps = seed, total_steps
        self.indexed, self._pending = indexed, False
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_state_dict_pre_hook(_settle)
        self.register_load_state_dict_pre_hook(_settle)

    def forward(
        self,
        images: Tensor,
        labels: Any,
        *,
        index: Tensor | None = None,
        views: Sequence[Tensor] = (),
        same_class_inputs: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch: images (B, C, H, W) and what the task takes as labels.

        Args:
            images, labels: the batch.
            index: place of each image in the training set, (B,), for methods that keep something
                for each of them.
            views: further augmentations of the same images, for methods that compare views.
            same_class_inputs: for each image another one of its class, for methods that compare
                those.

        Raises:
            ConfigError: the method needs one of the last three and it is missing, or it needs one
                class an image and the labels are mixed.
        """
        self._check(labels, index, views, same_class_inputs)
        if self.training:
            self.settle()
        if index is None:
            index = torch.arange(len(images), device=images.device)
        step = self.method(
            Batch(images, labels, index, tuple(views), same_class_inputs), self._now()
        )
        self.last = _detached(step)
        if self.training:
            self.step += 1
            self._pending = True
        total: Tensor = step.total
        return total

    def settle(self) -> None:
        """Do what the method does after a step, if that of the last one is still to be done."""
        if self._pending:
            self._pending = False
            self.method.after_step(self._now(behind=1))

    def after_epoch(self, held_out: Iterable[tuple[Tensor, Any]]) -> None:
        """Let a method measure itself on held-out (images, labels), where it wants that."""
        self.method.after_epoch(
            Batch(images, labels, torch.arange(len(images), device=images.device))
            for images, labels in held_out
        )

    def param_groups(self) -> list[dict[str, Any]]:
        """What trains, for the optimizer; a group may carry `lr_scale`, a factor on the rate."""
        return self.method.param_groups()

    def no_weight_decay(self) -> set[str]:
        """Parameters that the student wants without weight decay, as timm asks its networks."""
        student = self.method.predictors()["student"]
        theirs: set[str] = getattr(student, "no_weight_decay", set)()
        prefix = student_prefix(self.method)
        return set() if prefix is None else {f"method.{prefix}{name}" for name in theirs}

    def predict(self, images: Tensor) -> dict[str, Any]:
        """The output of every exit and of the student."""
        return self.method.predict(images)

    def _check(
        self,
        labels: Any,
        index: Tensor | None,
        views: Sequence[Tensor],
        same_class_inputs: Tensor | None,
    ) -> None:
        needs = self.method.needs
        if len(views) + 1 < needs.views:
            raise ConfigError(
                f"this method compares {needs.views} augmentations of each image: "
                f"call criterion(images, labels, views=[...]) with {needs.views - 1} more"
            )
        if needs.same_class and same_class_inputs is None:
            raise ConfigError(
                "this method compares images of one class: call criterion(images, labels, "
                "same_class_inputs=...) with another image of the same class for each"
            )
        if self.indexed and index is None:
            raise ConfigError(
                "this method remembers every image: call criterion(images, labels, index=...) with "
                "its place in the training set"
            )
        if needs.image_labels and isinstance(labels, Tensor) and labels.is_floating_point():
            raise ConfigError(
                "this method wants one class an image, and these labels are mixtures; "
                "train it without mixup and cutmix"
            )

    def _now(self, *, behind: int = 0) -> Progress:
        """Where training stands, or stood some steps ago."""
        numbers = self.seed, 0, self.total_steps or _ENDLESS
        seed, epoch, total = (torch.full_like(self.step, number) for number in numbers)
        return Progress(seed, epoch, self.step - behind, total)


def _settle(criterion: nn.Module, *rest: Any) -> None:
    assert isinstance(criterion, DistillationLoss)
    criterion.settle()


def _detached(value: Any) -> Any:
    """The same without gradients, whatever it is made of."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {name: _detached(part) for name, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_detached, value))
    return type(value)(map(_detached, value)) if isinstance(value, list | tuple) else value


def wrap(
    network: nn.Module,
    method: str,
    *,
    example: Tensor,
    classes: int | Sequence[str],
    task: str = "classification",
    taps: str | Sequence[str] = "auto",
    teacher: nn.Module | None = None,
    teacher_taps: str | Sequence[str] = "auto",
    peers: Sequence[nn.Module] = (),
    train_labels: Tensor | None = None,
    label_smoothing: float = 0.0,
    seed: int = 0,
    total_steps: int | None = None,
    **options: Any,
) -> DistillationLoss:
    """Put a method around a network, to be trained in a loop of one's own.

    Args:
        network: trained in place; afterwards the improved network, with its own keys.
        method: a name; `selfdistill methods` lists them.
        example: two images as the network takes them, (2, C, H, W).
        classes: how many, or their names.
        task: what labels mean: ``"classification"``, labels (B,); ``"segmentation"``, masks
            (B, H, W) int64 in which 255 is no class; ``"detection"``, rows (B, M, 5) float32 of
            class, x1, y1, x2, y2 in pixels, of class −1 where there is no box.
        taps, teacher_taps: where to read features, see `find_taps`.
        teacher: for methods that learn from one; left as it is.
        peers: networks that are trained along, for methods that train several.
        train_labels: of all training images, (N,), for methods that remember every image.
        label_smoothing: of the supervised loss, in [0, 1).
        seed: of the method's own draws.
        total_steps: how many calls training will take, for methods whose weights change over it.
        options: the method's own keywords.

    Returns:
        A module to call as a loss, on the network's device.

    Raises:
        ConfigError: an unknown method, task or option, or a network whose outputs do not fit the
            task and its classes.

    Examples:
        >>> network = nn.Sequential(
        ...     nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        ...     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        >>> images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> criterion = wrap(network, "muse", example=images, classes=10, taps="1,3")
        >>> optimizer = torch.optim.SGD(criterion.parameters(), lr=0.1)
        >>> criterion(images, labels).backward()
    """
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
    if task not in TASKS:
        raise ConfigError(f"there is no task '{task}'{nearest(task, TASKS)}")
    meaning = TASKS[task](names, example, label_smoothing=label_smoothing)
    for each in (network, *peers, *([teacher] if teacher else [])):
        meaning.check(each)
    built = build_method(
        method,
        network,
        meaning,
        taps,
        check_options(method, options),
        teacher=teacher,
        teacher_taps=teacher_taps,
        peers=peers,
        train_labels=train_labels,
    )
    device = next((p.device for p in network.parameters()), example.device)
    wants = (inspect.signature(cls).parameters for cls in method_classes(method).values())
    indexed = any("train_labels" in parameters for parameters in wants)
    criterion = DistillationLoss(
        built, meaning, seed=seed, total_steps=total_steps, indexed=indexed
    )
    return criterion.to(device)
