"""The interface between training and methods."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from .batch import Batch, Needs, Progress, StepOutput

STUDENT = "student"
"""The name of the predictor that is the student itself; `Method.predictors` ends with it."""

Kind = Literal["baseline", "self", "online", "offline"]


class Provenance(StrEnum):
    """Sources that an implementation of a method rests on."""

    CODE = "paper and its authors' code"
    BENCHMARK = "paper and public code of others, a benchmark or a port"
    PAPER = "paper; weights and parts it leaves open are chosen here"
    NOTES = "notes and code of others about the paper"
    ABSTRACT = "reconstruction from the abstract"


class NetworkWrapper(nn.Module):
    """A module around a network that must not change the names of the network's tensors.

    Attributes:
        network: the network, which files and users get without the wrapper.
    """

    network: nn.Module


class Method(nn.Module, ABC):
    """A training method: one module that owns all trained parameters.

    A subclass lives in one file of `methods/`, registers itself with `METHODS.add(NAME)` and must
    write `forward`. Its constructor is its interface: positional parameters are
    what it is given (`student`, `teacher`, `peers`, `task`, `train_labels`), keyword-only ones are
    what a user may tune; command line, recipes and documentation are read from that signature.

    Attributes:
        kind: source of the targets: labels alone ("baseline"), the student itself ("self"), peers
            trained with it ("online") or a teacher ("offline").
        provenance: the sources of the implementation.
        needs: of data and task; an instance may need more than its class, and no `extra` images.
        teacher_method: name of the method that a teacher must have been trained by, or "". Such a
            teacher is given as that method, with all that it trained.
        teacher_reads: what is read of the teacher for the views of a batch: its "outputs" alone, by
            `Frozen.outputs`; these and its "pooled" last feature, by `Teacher.pooled`, so that a
            cache may give both; or other "features". An instance may read less than its class.
        composite: whether the student is a network of the method's own making, which the given one
            is a part of, or from which it is made.
        default_taps: where features are read if nobody names taps: "auto", ending with what the
            classifier pools, or "stages", the ends of the stages alone.
        cycles: number of equal cycles of the run; the learning rate restarts in each.
    """

    kind: ClassVar[Kind]
    provenance: ClassVar[Provenance]
    needs: Needs = Needs()
    teacher_method: ClassVar[str] = ""
    teacher_reads: Literal["outputs", "pooled", "features"] = "features"
    composite: ClassVar[bool] = False
    default_taps: ClassVar[Literal["auto", "stages"]] = "auto"
    cycles: int = 1

    @abstractmethod
    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Outputs, weighted loss terms and monitors of one batch.

        It must not change the method's state: other changes than those of the weights belong into
        `after_step`.
        """

    def predictors(self) -> dict[str, nn.Module]:
        """The trained networks by name, shallowest first, `student` last.

        The network in `self.student` alone; override where there are exits, peers or ensembles.
        """
        student = self.get_submodule("student")
        return {"student": student.network if isinstance(student, NetworkWrapper) else student}

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """Output of every predictor; override where one pass can serve them all."""
        return {name: network(inputs) for name, network in self.predictors().items()}

    def after_step(self, progress: Progress) -> None:
        """Hook after each optimizer step: moving-average teachers, memories, snapshots.

        `progress` is that of the finished step. The engine gives its numbers on the CPU, where they
        are read without waiting for the device.
        """

    def after_epoch(self, held_out: Iterable[Batch]) -> None:
        """Hook after each epoch; `held_out` are this process's validation batches, maybe none."""

    def score_extra(self, images: Tensor) -> Tensor:
        """(B, ...) of extra images, not augmented, for `choose_extra`; where `Needs.chosen_extra`.

        It is called before each epoch, in evaluation mode and without gradients.
        """
        raise NotImplementedError

    def choose_extra(self, scores: Tensor, progress: Progress) -> Tensor:
        """Indices (M,) int64 of the extra images that the next epoch is to see, M ≥ 1.

        Args:
            scores: of all extra images, (N, ...), the same in every process.
            progress: that of the epoch's first step.
        """
        raise NotImplementedError

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer; a group may carry `lr_scale` or `weight_decay`."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """{monitor: warning}, from the monitors' means over an epoch."""
        return {}
