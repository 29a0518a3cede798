"""A method as a training task of timm."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..core import ArtifactError, ConfigError, trained_state
from ..engine.state import split_student
from .loss import DistillationLoss

try:
    from timm.task import TrainingTask, resume_task_checkpoint  # noqa: F401  the contract's age
    from timm.utils.model import unwrap_model
except ImportError:
    raise ConfigError(
        "DistillationTask is a timm.task.TrainingTask, which this version of timm does not have; "
        'pip install -U "timm>=1.0.27"'
    ) from None


class DistillationTask(TrainingTask):  # type: ignore[misc]
    """A criterion where timm's training machinery expects a task.

    The optimizer gets `task.get_trainable_module()`, the method with all that it trains; validation
    gets `task.get_eval_model()`, the student alone. A checkpoint of timm's saver holds the student
    under `state_dict`, by its own keys, and the rest of the method under `task_state`.

    Images reach the teacher as they reach the student; both must want one normalization.

    Args:
        criterion: as `selfdistill.wrap` makes it.
        device: None is where the criterion's parameters are.
        dtype, verbose: as timm has them.

    Raises:
        ConfigError: the method wants more of a batch than timm's loaders give, or the criterion is
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
        place = device or next((p.device for p in criterion.parameters()), None)
        super().__init__(device=place, dtype=dtype, verbose=verbose)
        self.trainable_module: nn.Module = criterion.to(place)

    @property
    def criterion(self) -> DistillationLoss:
        """The criterion, whatever it is wrapped in."""
        found = _criterion_in(self.trainable_module)
        assert found is not None
        return found

    def forward(self, input: Tensor, target: Any) -> dict[str, Tensor]:
        """`loss`, the student's `output`, and each term by its name, the latter detached."""
        loss = self.trainable_module(input, target)
        said = self.criterion.last
        return {**said.losses, "loss": loss, "output": said.outputs}

    def prepare_distributed(
        self, device_ids: list[Any] | None = None, **ddp_kwargs: Any
    ) -> "DistillationTask":
        """Wrap the criterion in DistributedDataParallel, to be called after `setup_ema`."""
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
        self.criterion.method.compile(**words)
        self.eval_model: nn.Module = torch.compile(student, **words)  # type: ignore[assignment]
        return self.eval_model

    def get_eval_model(
        self, module: nn.Module | None = None, ema: bool = False
    ) -> nn.Module | None:
        """The student, as it was given; of the averaged criterion with `ema`."""
        found: nn.Module | None = super().get_eval_model(module=module, ema=ema)
        criterion = _criterion_in(found)
        return found if criterion is None else _student(criterion)

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """All that trains; with `exclude_head` without the student's last two, as timm counts."""
        left_out = list(_student(self.criterion).parameters())[-2:] if exclude_head else []
        ids = {id(parameter) for parameter in left_out}
        return [p for p in self.criterion.parameters() if p.requires_grad and id(p) not in ids]

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """What trains beside the student, and the number of steps."""
        criterion = self._criterion_of(module, ema)
        return {} if criterion is None else _rest(criterion)

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Put back what `get_task_state` gave; without any, a checkpoint of the student serves.

        Raises:
            ArtifactError: it is another method's, or another network's.
        """
        criterion = self._criterion_of(module, ema)
        if not state or criterion is None:
            return
        different = sorted(state.keys() ^ _rest(criterion).keys()) if strict else []
        try:
            criterion.load_state_dict(state, strict=False)
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
    wants = {
        "the place of each image in the training set": criterion.indexed,
        f"{needs.views} augmentations of each image": needs.views > 1,
        "another image of the same class for each": needs.same_class,
    }
    if missing := next((what for what, wanted in wants.items() if wanted), None):
        raise ConfigError(
            f"this method wants {missing}, which timm's loaders do not give; take a loop of your "
            "own with selfdistill.wrap, or selfdistill train"
        )


def _criterion_in(module: nn.Module | None) -> DistillationLoss | None:
    found = None if module is None else unwrap_model(module)
    return found if isinstance(found, DistillationLoss) else None


def _student(criterion: DistillationLoss) -> nn.Module:
    return criterion.method.predictors()["student"]


def _rest(criterion: DistillationLoss) -> dict[str, Tensor]:
    """What of a criterion a checkpoint must hold beside the student, by the criterion's keys."""
    criterion.settle()
    rest = split_student(criterion.method, trained_state(criterion.method))["method"]
    return {**{f"method.{name}": value for name, value in rest.items()}, "step": criterion.step}
