"""What the methods share that contrast the embeddings of student and teacher with memories."""

import torch
from torch import Tensor

from ..core import ConfigError, Progress
from ..core.keyed_random import bits, purpose
from .class_draws import ClassDraws
from .feature_distillation import FeatureDistillation
from .memory import MemoryBank
from .step_record import RecordingMethod

_NEGATIVES = purpose("crd.negatives")  # of all such methods: another name would draw others


class MemoryDistillation(FeatureDistillation, RecordingMethod):
    """A student and a frozen teacher, with a memory of an embedding of each training image by each.

    Memories and the draws from them are made by `add_memories`. A pass records indices (B,) and
    embeddings of student and teacher, (B, D) of unit length, and any further tensors, for
    `update_memories`, which a method calls after the step.

    Args:
        student, teacher, task, soft_weight, temperature: as of `FeatureDistillation`.
    """

    def add_memories(
        self, train_labels: Tensor, num_negatives: int, width: int, momentum: float
    ) -> None:
        """Make memories of all training images, and the draws of images of other classes.

        Args:
            train_labels: classes of all training images, in the order of `Batch.indices`.
            num_negatives: drawn for an image; capped at the number of images outside the largest
                class.
            width: dimension D of the embeddings.
            momentum: fraction of its old value that an updated row keeps.

        Raises:
            ConfigError: there is no negative, or none is to be drawn.
        """
        if num_negatives < 1:
            raise ConfigError(
                f"an image is contrasted with 1 negative or more, not num_negatives={num_negatives}"
            )
        self.draws = ClassDraws(train_labels)
        if len(self.draws.count) < 2:
            raise ConfigError(
                "images are contrasted with those of other classes, which takes training images of "
                "two classes or more"
            )
        self.num_negatives = min(num_negatives, len(train_labels) - int(self.draws.count.max()))
        self.memory_student = MemoryBank(len(train_labels), width, momentum)
        self.memory_teacher = MemoryBank(len(train_labels), width, momentum)

    def negatives(self, index: Tensor, progress: Progress) -> Tensor:
        """Images of other classes than those of the images `index` (B,), drawn anew: (B, K)."""
        index, slots = index[:, None], torch.arange(self.num_negatives, device=index.device)
        draws = bits(_NEGATIVES, progress.seed, progress.step, index, slots)
        return self.draws.other(index, draws)

    @torch.no_grad()
    def update_memories(self) -> list[Tensor]:
        """Update the memories by what waits; returns it, concatenated, or nothing if none does."""
        recorded = self.recorded()
        if not recorded:
            return []
        index, student, teacher, *_ = recorded
        self.memory_student.update(index, student)
        self.memory_teacher.update(index, teacher)
        return recorded
