"""A method as a training task of timm."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..core import ArtefactError, ConfigError, trained_state
from ..engine.state import split_student
from .plain import Lesson

try:
    from timm.task import TrainingTask, resume_task_checkpoint  # noqa: F401  the contract's age
    from timm.utils.model import unwrap_model
except ImportError:
    raise ConfigError(
        "DistillTask is a timm.task.TrainingTask, which this version of timm does not have; "
        'pip install -U "timm>=1.0.27"'
    ) from None


class DistillTask(TrainingTask):  # type: ignore[misc]
    """A lesson where timm's training machinery expects a task.

    The optimiser gets `task.get_trainable_module()`, the method with all that it trains; validation
    gets `task.get_eval_model()`, the student alone. A checkpoint of timm's saver holds the student
    under `state_dict`, by its own keys, and the rest of the method under `task_state`.

    Images reach the teacher as they reach the student; both must want one normalisation.

    Args:
        lesson: as `selfdistill.wrap` makes it.
        device: None is where the lesson's parameters are.
        dtype, verbose: as timm has them.

    Raises:
        ConfigError: the method wants more of a batch than timm's loaders give, or the lesson is for
            another task than classification.

    Examples:
        >>> from selfdistill import wrap
        >>> network = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        ...     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        >>> images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
        >>> task = DistillTask(wrap(network, "muse", example=images, classes=10, taps="1,3"))
        >>> task(images, labels)["loss"].backward()
    """

    def __init__(
        self,
        lesson: Lesson,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        _check(lesson)
        place = device or next((p.device for p in lesson.parameters()), None)
        super().__init__(device=place, dtype=dtype, verbose=verbose)
        self.trainable_module: nn.Module = lesson.to(place)

    @property
    def lesson(self) -> Lesson:
        """The lesson, whatever it is wrapped in."""
        found = _lesson_in(self.trainable_module)
        assert found is not None
        return found

    def forward(self, input: Tensor, target: Any) -> dict[str, Tensor]:
        """`loss`, the student's `output`, and each term by its name, the latter detached."""
        loss = self.trainable_module(input, target)
        said = self.lesson.last
        return {**said.losses, "loss": loss, "output": said.outputs}

    def prepare_distributed(
        self, device_ids: list[Any] | None = None, **ddp_kwargs: Any
    ) -> "DistillTask":
        """Wrap the lesson in DistributedDataParallel, to be called after `setup_ema`."""
        self.trainable_module = DistributedDataParallel(
            self.trainable_module, device_ids=device_ids, **ddp_kwargs
        )
        return self

    def compile(  # type: ignore[override]
        self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any
    ) -> nn.Module:
        """Compile the method's step in place, and the student for validation."""
        words = {"backend": backend, "mode": mode, **compile_kwargs}
        student = self.get_eval_model()
        self.lesson.method.compile(**words)
        self.eval_model: nn.Module = torch.compile(student, **words)  # type: ignore[assignment]
        return self.eval_model

    def get_eval_model(
        self, module: nn.Module | None = None, ema: bool = False
    ) -> nn.Module | None:
        """The student, as it was given; of the averaged lesson with `ema`."""
        found: nn.Module | None = super().get_eval_model(module=module, ema=ema)
        lesson = _lesson_in(found)
        return found if lesson is None else _student(lesson)

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """All that trains; with `exclude_head` without the student's last two, as timm counts."""
        left_out = list(_student(self.lesson).parameters())[-2:] if exclude_head else []
        ids = {id(parameter) for parameter in left_out}
        return [p for p in self.lesson.parameters() if p.requires_grad and id(p) not in ids]

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """What trains beside the student, and the number of steps."""
        lesson = self._lesson_of(module, ema)
        return {} if lesson is None else _rest(lesson)

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Put back what `get_task_state` gave; without any, a checkpoint of the student serves.

        Raises:
            ArtefactError: it is another method's, or another network's.
        """
        lesson = self._lesson_of(module, ema)
        if not state or lesson is None:
            return
        different = sorted(state.keys() ^ _rest(lesson).keys()) if strict else []
        try:
            lesson.load_state_dict(state, strict=False)
        except RuntimeError as error:
            different = [str(error).splitlines()[-1].strip()]
        if different:
            raise ArtefactError(
                f"the checkpoint does not fit this method (first difference: {different[0]})"
            )

    def _lesson_of(self, module: nn.Module | None, ema: bool) -> Lesson | None:
        return _lesson_in(self.get_trainable_module(ema=ema) if module is None else module)


def _check(lesson: Lesson) -> None:
    if not lesson.task.labels:
        raise ConfigError(
            f"timm's loop trains classifiers, and this lesson is for {lesson.task.name}; take a "
            "loop of your own with selfdistill.wrap, or selfdistill train"
        )
    needs = lesson.method.needs
    wants = {
        "the place of each image in the training set": lesson.indexed,
        f"{needs.views} augmentations of each image": needs.views > 1,
        "another image of the same class for each": needs.partners,
    }
    if missing := next((what for what, wanted in wants.items() if wanted), None):
        raise ConfigError(
            f"this method wants {missing}, which timm's loaders do not give; take a loop of your "
            "own with selfdistill.wrap, or selfdistill train"
        )


def _lesson_in(module: nn.Module | None) -> Lesson | None:
    found = None if module is None else unwrap_model(module)
    return found if isinstance(found, Lesson) else None


def _student(lesson: Lesson) -> nn.Module:
    return lesson.method.predictors()["student"]


def _rest(lesson: Lesson) -> dict[str, Tensor]:
    """What of a lesson a checkpoint must hold beside the student, by the lesson's keys."""
    lesson.settle()
    rest = split_student(lesson.method, trained_state(lesson.method))["method"]
    return {**{f"method.{name}": value for name, value in rest.items()}, "step": lesson.step}
