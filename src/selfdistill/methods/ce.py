from torch import nn

from ..core import METHODS, Batch, Method, Progress, Provenance, StepOutput, Task


@METHODS.add("ce")
class CrossEntropy(Method):
    """Plain supervised training: the baseline that everything else has to beat.

    Source: none; the rows "Baseline" of MUSE (https://arxiv.org/abs/2110.12606), Tables 1 to 7.

    Args:
        student: the network.
        task: what the labels mean; its supervised loss is the only term.
    """

    kind = "baseline"
    provenance = Provenance.PAPER

    def __init__(self, student: nn.Module, task: Task) -> None:
        super().__init__()
        self.student, self.task = student, task

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """The supervised loss of the student."""
        out = self.student(batch.inputs)
        return StepOutput(out, {"task": self.task.loss(out, batch.targets)})

    def predictors(self) -> dict[str, nn.Module]:
        """The student alone."""
        return {"student": self.student}
