"""A method as a LightningModule."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..core import ConfigError, trained_state
from ..core.extras import require
from .loss import DistillationLoss

if TYPE_CHECKING:
    from lightning import LightningModule
else:
    LightningModule = require(
        "lightning", extra="lightning", purpose="DistillationLightningModule"
    ).LightningModule


class DistillationLightningModule(LightningModule):
    """A criterion for Lightning's Trainer; a subclass can override any of its steps.

    A batch is (images, labels), or a dictionary of `DistillationLoss.forward`'s arguments, for
    methods that need `index`, `views`, `same_class_inputs` or `extra`. Logged are `train/loss`,
    `train/TERM` and `val/PREDICTOR`: the accuracy of classifiers, and the supervised loss where the
    metric is no mean over batches. Checkpoints hold all trained tensors, and no teacher.

    Args:
        criterion: as `selfdistill.wrap` makes it.
        lr: the highest learning rate of `configure_optimizers`.
        momentum, weight_decay: of its SGD.

    Examples:
        >>> from torch import nn
        >>> from selfdistill import wrap
        >>> network = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        ...     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        >>> images = torch.zeros(2, 3, 16, 16)
        >>> criterion = wrap(network, "muse", example=images, classes=10, taps="1,3")
        >>> module = DistillationLightningModule(criterion, lr=0.1)
        >>> # lightning.Trainer(max_epochs=50).fit(module, train_loader, val_loader)
    """

    def __init__(
        self,
        criterion: DistillationLoss,
        *,
        lr: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self._knows_length = criterion.total_steps is not None

    def on_train_start(self) -> None:
        """Set the criterion's `total_steps`, unless it was given: what is done and what is left."""
        steps = self.trainer.estimated_stepping_batches  # inf without a limit
        if not self._knows_length and math.isfinite(steps):
            left = (int(steps) - self.trainer.global_step) * self.trainer.accumulate_grad_batches
            self.criterion.total_steps = int(self.criterion.step) + left

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss: Tensor = self.criterion(**_arguments(batch))
        terms = {f"train/{name}": value for name, value in self.criterion.last.losses.items()}
        self.log_dict({"train/loss": loss.detach(), **terms})
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The accuracy of every exit and of the student, or their losses."""
        arguments, task = _arguments(batch), self.criterion.task
        images, labels = arguments["images"], arguments["labels"]
        for name, outputs in self.criterion.predict(images).items():
            correct = task.correct_mask(outputs, labels)
            value = task.loss(outputs, labels) if correct is None else correct.float().mean()
            self.log(f"val/{name}", value, batch_size=len(images), sync_dist=True)

    def forward(self, images: Tensor) -> dict[str, Any]:
        """The output of every exit and of the student."""
        return self.criterion.predict(images)

    def configure_optimizers(self) -> Any:
        """SGD with Nesterov's momentum, and a cosine from `lr` to 0 over the whole training."""
        optimizer: Optimizer = torch.optim.SGD(
            self.criterion.param_groups(self.lr),
            momentum=self.momentum,
            nesterov=self.momentum > 0,
            weight_decay=self.weight_decay,
        )
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            return optimizer
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remove tensors that never train, such as a teacher's."""
        trained = trained_state(self)
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: t for name, t in state.items() if name in trained}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the removed tensors from the module, so that loading can be strict."""
        own, trained = self.state_dict(), trained_state(self)
        for name in trained:
            del own[name]
        own.update(checkpoint["state_dict"])  # with the versions of its layers' layouts
        checkpoint["state_dict"] = own


def _arguments(batch: Any) -> dict[str, Any]:
    """The arguments of `DistillationLoss.forward` that a batch holds."""
    if isinstance(batch, Mapping):
        return dict(batch)
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise ConfigError(
            "a batch is (images, labels), or a dictionary of images, labels and whatever else the "
            "method needs of index, views, same_class_inputs and extra"
        )
    return {"images": batch[0], "labels": batch[1]}
