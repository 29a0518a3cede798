from torch import nn

from ..core import METHODS, Batch, Method, Needs, Progress, Provenance, StepOutput, Task


@METHODS.add("ce")
class CrossEntropy(Method):
    """Train with the task's supervised loss alone: the baseline of all methods.

    Source: none; the rows "Baseline" of MUSE (https://arxiv.org/abs/2110.12606), Tables 1 to 7.

    Args:
        student: the network.
        task: what the labels mean; its supervised loss is the only term.
    """

    kind = "baseline"
    provenance = Provenance.PAPER
    needs = Needs(images=False)

    def __init__(self, student: nn.Module, task: Task) -> None:
        super().__init__()
        self.student, self.task = student, task

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, the supervised loss of the student."""
        outputs = self.student(batch.inputs)
        return StepOutput(outputs, {"task": self.task.loss(outputs, batch.targets)})
