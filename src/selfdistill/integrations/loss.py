"""A method as a loss module, for any training loop."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Batch, ConfigError, Method, Progress, StepOutput, Task
from ..engine.optimizer import resolve_lr_scale
from ..engine.state import student_prefix
from ..modules.memory import process_count

_UNKNOWN_LENGTH = 1 << 60  # steps, of a run whose length no method asks for


class DistillationLoss(nn.Module):
    """A method that is called like a loss: ``loss = criterion(images, labels)``.

    It owns all trained parameters: give `criterion.param_groups(lr)` to the optimizer and save
    `criterion.state_dict()`, which includes the step count.

    Each call in training mode is one step. A method's `after_step` (memories, snapshots) runs at
    the next call or when the state is read, since only then the optimizer has updated the weights.
    With several processes call `apply_after_step` on each of them before one saves the state.

    Args:
        method: as `build_method` builds it.
        task: of the labels.
        seed: of the method's random draws.
        total_steps: number of calls in training, for methods whose weights change over it.
        needs_index: whether calls must give the index of each image.

    Attributes:
        method, task: as given.
        last: outputs, loss terms and monitors of the last call, detached, for logging.
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
        needs_index: bool = False,
    ) -> None:
        super().__init__()
        self.method, self.task = method, task
        self.seed, self.total_steps = seed, total_steps
        self.needs_index, self._after_step_due = needs_index, False
        self._first_call = True
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_state_dict_pre_hook(_apply_after_step)
        self.register_load_state_dict_pre_hook(_apply_after_step)

    def forward(
        self,
        images: Any,
        labels: Any,
        *,
        index: Tensor | None = None,
        views: Sequence[Tensor] = (),
        same_class_inputs: Tensor | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch: images (B, C, H, W), or a graph, and the task's labels.

        Args:
            images, labels: the batch; labels None for methods that read none.
            index: of each image in the training set, (B,), for methods with a memory of images.
            views: further augmentations of the same images, for methods that compare views.
            same_class_inputs: another image of the same class for each, for methods that compare
                them.
            extra: images without labels, (B', C, H, W), for methods that learn from them, too.

        Raises:
            ConfigError: the method needs one of the last four, or `total_steps`, and it is missing,
                or it needs one class an image and the labels are mixed.
        """
        self._check(labels, index, views, same_class_inputs, extra)
        # on another device a wrong label stops there, and to look at them is to wait for it
        on_host = not isinstance(labels, Tensor) or labels.device.type == "cpu"
        samples = self.task.num_samples(images)
        if not self.method.needs.unlabeled:
            self.task.check_targets(labels, samples, values=on_host or self._first_call)
        self._first_call = False
        if self.training:
            self.apply_after_step()
        if index is None:
            index = torch.arange(samples, device=self.step.device)
        batch = Batch(images, labels, index, tuple(views), same_class_inputs, extra)
        step = self.method(batch, self._progress())
        self.last = _detached(step)
        if self.training:
            self.step += 1
            self._after_step_due = True
        total: Tensor = step.total
        return total

    def apply_after_step(self) -> None:
        """Run the method's `after_step` of the last call, unless it has run."""
        if self._after_step_due:
            self._after_step_due = False
            self.method.after_step(self._progress(steps_ago=1))

    def after_epoch(self, held_out: Iterable[tuple[Any, Any]]) -> None:
        """Run the method's `after_epoch` on held-out (images, labels)."""
        self.method.after_epoch(
            Batch(images, labels, torch.arange(self.task.num_samples(images)).to(self.step))
            for images, labels in held_out
        )

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups for any torch optimizer, each with its own `lr`.

        The rate of a group is `lr`, scaled where the method sets a factor (the discriminators of
        `afd`). Schedulers that scale each group's initial rate keep the ratio.
        """
        return resolve_lr_scale(self.method.param_groups(), lr)

    def no_weight_decay(self) -> set[str]:
        """Names of the student's parameters without weight decay, in timm's convention."""
        student = self.method.predictors()["student"]
        names: set[str] = getattr(student, "no_weight_decay", set)()
        prefix = student_prefix(self.method)
        return set() if prefix is None else {f"method.{prefix}{name}" for name in names}

    def predict(self, images: Any) -> dict[str, Any]:
        """The output of every exit and of the student."""
        return self.method.predict(images)

    def _check(
        self,
        labels: Any,
        index: Tensor | None,
        views: Sequence[Tensor],
        same_class_inputs: Tensor | None,
        extra: Tensor | None,
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
        if needs.extra and not needs.unlabeled and extra is None:
            raise ConfigError(
                "this method learns from images without labels, too: call criterion(images, "
                "labels, extra=...) with some"
            )
        if self.needs_index and index is None:
            raise ConfigError(
                "this method remembers every image: call criterion(images, labels, index=...) with "
                "its index in the training set"
            )
        if needs.run_length and self.total_steps is None:
            raise ConfigError(
                "this method changes over the run: make it by wrap(..., total_steps=N), the number "
                "of calls in training"
            )
        if needs.single_label and isinstance(labels, Tensor) and labels.is_floating_point():
            raise ConfigError(
                "this method wants one class an image, and these labels are mixtures; "
                "train it without mixup and cutmix"
            )

    def _progress(self, *, steps_ago: int = 0) -> Progress:
        """Progress of training, now or some steps ago."""
        numbers = self.seed, 0, self.total_steps or _UNKNOWN_LENGTH
        seed, epoch, total = (torch.full_like(self.step, number) for number in numbers)
        return Progress(seed, epoch, self.step - steps_ago, total)


def _apply_after_step(criterion: nn.Module, *hook_arguments: Any) -> None:
    assert isinstance(criterion, DistillationLoss)
    if not (criterion.needs_index and criterion._after_step_due and process_count() > 1):
        criterion.apply_after_step()
        return
    # memories of images are gathered from all processes: one that saves would wait for ever
    warnings.warn(
        "what the method remembers of the last step is left out of its state, since processes "
        "share it and the others may not be here; call criterion.apply_after_step() on every "
        "process before",
        stacklevel=2,
    )


def _detached(value: Any) -> Any:
    """The same nested value, with all tensors detached."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {name: _detached(part) for name, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_detached, value))
    return type(value)(map(_detached, value)) if isinstance(value, list | tuple) else value
