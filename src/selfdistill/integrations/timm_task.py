"""A method as a `TrainingTask` of timm."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..core import ArtifactError, ConfigError, load_tensors, trained_state
from ..engine.state import split_student
from .loss import DistillationLoss

try:
    from timm.task import TrainingTask, resume_task_checkpoint  # noqa: F401  of the required version
    from timm.utils.model import unwrap_model
except ImportError:
    raise ConfigError(
        "DistillationTask is a timm.task.TrainingTask, which this version of timm does not have; "
        'pip install -U "timm>=1.0.27"'
    ) from None


class DistillationTask(TrainingTask):  # type: ignore[misc]
    """A criterion as a task of timm's training script.

    The optimizer gets `task.get_trainable_module()`, the method with all that it trains, or
    `criterion.param_groups(lr)` where a group has its own rate; validation gets
    `task.get_eval_model()`, the student alone. A checkpoint of timm's saver holds the student under
    `state_dict`, by its own keys, and all other trained tensors under `task_state`.

    Teacher and student get the same images and must have the same normalization.

    Args:
        criterion: as `selfdistill.wrap` makes it.
        device: None is the device of the criterion's parameters.
        dtype, verbose: see `TrainingTask`.

    Raises:
        ConfigError: the method needs more of a batch than timm's loaders give, or the criterion is
            for another task than classification.

    Examples:
        >>> from selfdistill import wrap
        >>> network = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        ...     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        >>> images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
        >>> task = DistillationTask(wrap(network, "muse", example=images, classes=10, taps="1,3"))
        >>> task(images, labels)["loss"].backward()
    """

    def __init__(
        self,
        criterion: DistillationLoss,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        _check(criterion)
        device = device or next((p.device for p in criterion.parameters()), None)
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        self.trainable_module: nn.Module = criterion.to(device)

    @property
    def criterion(self) -> DistillationLoss:
        """The criterion without wrappers such as DistributedDataParallel."""
        criterion = _criterion_in(self.trainable_module)
        assert criterion is not None
        return criterion

    def forward(self, input: Tensor, target: Any) -> dict[str, Tensor]:
        """`loss`, and detached the student's `output` and each term by its name."""
        loss = self.trainable_module(input, target)
        last = self.criterion.last
        return {**last.losses, "loss": loss, "output": last.outputs}

    def prepare_distributed(
        self, device_ids: list[Any] | None = None, **ddp_kwargs: Any
    ) -> "DistillationTask":
        """Wrap the criterion in DistributedDataParallel; call `setup_ema` before."""
        self.trainable_module = DistributedDataParallel(
            self.trainable_module, device_ids=device_ids, **ddp_kwargs
        )
        return self

    def compile(  # type: ignore[override]
        self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any
    ) -> nn.Module:
        """Compile the method's step in place, and the student for validation."""
        options = {"backend": backend, "mode": mode, **compile_kwargs}
        student = self.get_eval_model()
        self.criterion.method.compile(**options)
        self.eval_model: nn.Module = torch.compile(student, **options)  # type: ignore[assignment]
        return self.eval_model

    def get_eval_model(
        self, module: nn.Module | None = None, ema: bool = False
    ) -> nn.Module | None:
        """The bare student; with `ema` that of the averaged criterion."""
        model: nn.Module | None = super().get_eval_model(module=module, ema=ema)
        criterion = _criterion_in(model)
        return model if criterion is None else _student(criterion)

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """All trained parameters; `exclude_head` omits the student's last two, as in timm."""
        excluded = list(_student(self.criterion).parameters())[-2:] if exclude_head else []
        ids = {id(parameter) for parameter in excluded}
        return [p for p in self.criterion.parameters() if p.requires_grad and id(p) not in ids]

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """Trained tensors outside the student, and the number of steps."""
        criterion = self._criterion_of(module, ema)
        return {} if criterion is None else _task_state(criterion)

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Restore what `get_task_state` returned; an empty state changes nothing.

        Raises:
            ArtifactError: the state is of another method or network.
        """
        criterion = self._criterion_of(module, ema)
        if not state or criterion is None:
            return
        different = sorted(state.keys() ^ _task_state(criterion).keys()) if strict else []
        try:
            load_tensors(criterion, state, strict=False)
        except RuntimeError as error:
            different = [str(error).splitlines()[-1].strip()]
        if different:
            raise ArtifactError(
                f"the checkpoint does not fit this method (first difference: {different[0]})"
            )

    def _criterion_of(self, module: nn.Module | None, ema: bool) -> DistillationLoss | None:
        return _criterion_in(self.get_trainable_module(ema=ema) if module is None else module)


def _check(criterion: DistillationLoss) -> None:
    if not criterion.task.image_labels:
        raise ConfigError(
            f"timm's loop trains classifiers, and this criterion is for {criterion.task.name}; "
            "take a loop of your own with selfdistill.wrap, or selfdistill train"
        )
    needs = criterion.method.needs
    requirements = {
        "the index of each image in the training set": criterion.needs_index,
        f"{needs.views} augmentations of each image": needs.views > 1,
        "another image of the same class for each": needs.same_class,
        "images without labels": needs.extra,
    }
    if missing := next((name for name, needed in requirements.items() if needed), None):
        raise ConfigError(
            f"this method needs {missing}, which timm's loaders do not give; take a loop of your "
            "own with selfdistill.wrap, or selfdistill train"
        )


def _criterion_in(module: nn.Module | None) -> DistillationLoss | None:
    unwrapped = None if module is None else unwrap_model(module)
    return unwrapped if isinstance(unwrapped, DistillationLoss) else None


def _student(criterion: DistillationLoss) -> nn.Module:
    return criterion.method.predictors()["student"]


def _task_state(criterion: DistillationLoss) -> dict[str, Tensor]:
    """Trained tensors of a criterion outside the student, by the criterion's keys."""
    criterion.apply_after_step()
    state = split_student(criterion.method, trained_state(criterion.method))["method"]
    return {**{f"method.{name}": value for name, value in state.items()}, "step": criterion.step}
