"""Inputs and outputs of a training step, and what a method needs of them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """One training batch on its device.

    Attributes:
        inputs: images, (B, C, H, W) float, normalized; clips, (B, C, T, H, W); or a graph.
        targets: of the task; for classification (B,) int64, or, where images are mixed, their
            parts in each class, (B, K) float. None where no label is read.
        indices: of the samples in the training set, (B,) int64.
        views: `Needs.views` − 1 further independent augmentations of the same images, or clips of
            the same videos.
        same_class_inputs: for each image another one of its class (or itself), (B, C, H, W),
            augmented independently; None unless `Needs.same_class`.
        extra: images without labels of another source, (B', C, H, W), normalized and augmented
            like `inputs`; None unless `Needs.extra`.
        teacher_outputs: the teacher's outputs for `inputs` and for each of `views`, where they are
            kept; () where the teacher is to be run. `Frozen.outputs` reads them.
        teacher_pooled: likewise its pooled last features, (B, C). `Teacher.pooled` reads both.
    """

    inputs: Any
    targets: Any
    indices: Tensor
    views: tuple[Tensor, ...] = ()
    same_class_inputs: Tensor | None = None
    extra: Tensor | None = None
    teacher_outputs: tuple[Tensor, ...] = ()
    teacher_pooled: tuple[Tensor, ...] = ()


class Progress(NamedTuple):
    """Position in the run: 0-d int64 tensors on the batch's device.

    Tensors, not numbers: a compiled step would be recompiled for each value of a number, and a draw
    keyed by tensors costs no synchronization with the host.

    Attributes:
        seed: the run's seed.
        epoch: from 0.
        step: optimizer steps taken since the start of the run.
        total: optimizer steps of the whole run.
    """

    seed: Tensor
    epoch: Tensor
    step: Tensor
    total: Tensor

    @property
    def fraction(self) -> Tensor:
        """Fraction of the run that is done, float32, in [0, 1): 1 where a loop goes on beyond."""
        return (self.step.to(torch.float32) / self.total).clamp(max=1)


class StepOutput(NamedTuple):
    """Outputs and losses of a method for a batch.

    Attributes:
        outputs: of the student, for the training metric.
        losses: weighted 0-d tensors by name; the loss is their sum.
        monitors: detached 0-d tensors by name, for logs alone.
    """

    outputs: Any
    losses: dict[str, Tensor]
    monitors: dict[str, Tensor] = {}  # noqa: RUF012  never written to

    @property
    def total(self) -> Tensor:
        """The loss: the sum of all named terms."""
        return sum(self.losses.values(), start=next(iter(self.losses.values())).new_zeros(()))


class Needs(NamedTuple):
    """Requirements of a method on data and task.

    Attributes:
        views: independent augmentations of each image.
        batch: smallest number of samples of a process; 2 where a term needs a negative.
        same_class: each image comes with another one of its class, `Batch.same_class_inputs`.
        image_labels: see `Task.image_labels`.
        single_label: an image has one class and is itself: targets are never mixtures (B, K), nor
            inputs mixed images. Of methods that read the class, or remember images one by one.
        class_scores: see `Task.class_scores`.
        dense_scores: see `Task.dense_scores`.
        embeddings: see `Task.embeddings`; no label is read.
        images: inputs are images; False where they are only passed on to the networks, so that
            graphs and clips do as well.
        clips: inputs may be clips, too, whose features have times, (B, C, T, H, W).
        graphs: inputs are graphs, see `Task.graphs`.
        teacher_scores: the teacher's outputs are compared with the student's, so both must have
            the same classes; without, its features alone are read.
        trained_student: the student does not learn, so it must have weights to begin with.
        distillation_token: the student has a distillation token, as `timm/deit_*_distilled_*` have;
            the method itself refuses others.
        extra: images without labels of another source, `Batch.extra`. A class states whether any
            choice of options reads them, an instance whether its own does.
        unlabeled: no image with a label is read: `Batch.inputs` are extra images, and an epoch is
            one of theirs.
        chosen_extra: before each epoch the method chooses among the extra images, see
            `Method.choose_extra`.
        run_length: `Progress.total` is read, so that a loop must say how long it is. A class states
            it for every choice of options, an instance for its own.
    """

    views: int = 1
    batch: int = 1
    same_class: bool = False
    image_labels: bool = False
    single_label: bool = False
    class_scores: bool = False
    dense_scores: bool = False
    embeddings: bool = False
    images: bool = True
    clips: bool = False
    graphs: bool = False
    teacher_scores: bool = False
    trained_student: bool = False
    distillation_token: bool = False
    extra: bool = False
    unlabeled: bool = False
    chosen_extra: bool = False
    run_length: bool = False

    @property
    def mixtures(self) -> bool:
        """Whether images may be mixed, and their labels with them."""
        return not (self.single_label or self.same_class or self.unlabeled or self.embeddings)

    def __or__(self, other: "Needs") -> "Needs":
        """The requirements of both; clips go where both can take them."""
        merged: Iterable[Any] = map(max, self, other)
        clips = all(needs.clips or not needs.images for needs in (self, other))
        return Needs(*merged)._replace(clips=clips)
