from typing import Any

import torch
from torch import Tensor, nn

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Method,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..functional.schedules import sigmoid_rampup
from ..taps import Taps
from ..taps.fx_split import reinitialized_copy, split_at


@METHODS.add("one")
class OnTheFlyEnsemble(Method):
    r"""Train several branches on one trunk, whose gated ensemble is the soft target of each branch.

    ONE, Lan et al. 2018, https://arxiv.org/abs/1806.04606, and its authors' code. The last stage
    and the classifier exist m times; a gate on the trunk's feature gives each image weights
    :math:`w_k` that sum to 1, and with :math:`z_e = \sum_k w_k z_k`

    .. math::
        L = \sum_{k \le m} L_{task}(z_k) + L_{task}(z_e)
            + r \sum_{k \le m} L_{soft}(z_k, sg\, z_e)

    The mixture is a constant in the soft terms only: its own supervised term trains the gate and
    all branches. The code raises the weight r of the soft terms over the first 80 of its 300
    epochs, :math:`r = \exp(-5 (1 - e / 80)^2)`, where the paper has none; we follow the code, once
    a step. It also adds 1e-7 to the mixture's probabilities before their logarithm; we do not.

    The student's own last stage is one of the branches, and what is exported (the paper's ONE); all
    branches and the gate together stay as the predictor `ensemble` (its ONE-E). A further branch
    starts from other weights, a random permutation of the student's.

    Args:
        student: a network with two taps or more that can be cut at the last but one: a branch is
            all behind it.
        task: what the labels mean; its outputs are class scores.
        num_branches: number of branches m ≥ 1, the student's own among them; the paper's 3. With 1
            the student learns from the labels alone.
        temperature: τ > 0 of the soft terms; the paper's 3.
        soft_weight: weight ≥ 0 of the soft terms after warm-up; 0 leaves them out.
        warmup_fraction: fraction of the run, in [0, 1], over which the soft terms grow to their
            weight; 0 has them full from the start, as in the paper. The code's 80 of 300 epochs.
    """

    kind = "self"
    provenance = Provenance.CODE
    needs = Needs(batch=2, class_scores=True)  # the gate's batch norm needs two images

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        num_branches: int = 3,
        temperature: float = 3.0,
        soft_weight: float = 1.0,
        warmup_fraction: float = 80 / 300,
    ) -> None:
        super().__init__()
        if len(student.names) < 2:
            raise ConfigError(
                "a branch starts at the last tap but one, and there is only one tap; "
                "`selfdistill taps MODEL` lists the modules to tap"
            )
        if num_branches < 1:
            raise ConfigError(
                f"num_branches counts the student's own branch and is not {num_branches}; give 1 "
                "or more"
            )
        if not 0 <= warmup_fraction <= 1:
            raise ConfigError(
                f"warmup_fraction is a fraction of the run between 0 and 1, not {warmup_fraction}"
            )
        self.student, self.task = student, task
        self.soft_weight, self.temperature = soft_weight, temperature
        self.warmup_fraction = warmup_fraction
        self.needs = self.needs._replace(run_length=bool(soft_weight and warmup_fraction))
        _, tail = split_at(student.network, student.names[-2:-1])
        self.tails = nn.ModuleList(reinitialized_copy(tail) for _ in range(num_branches - 1))
        self.gate = Gate(student.shapes[student.names[-2]][0], num_branches)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `task/k` of the further branches, `ensemble`, and `soft/k` of all branches."""
        outputs, mixture = branch_outputs(self.student, self.tails, self.gate, batch.inputs)
        losses = {"task": self.task.loss(outputs[0], batch.targets)}
        for k, output in enumerate(outputs[1:], 2):
            losses[f"task/{k}"] = self.task.loss(output, batch.targets)
        losses["ensemble"] = self.task.loss(mixture, batch.targets)
        if self.soft_weight:
            weight = self.soft_weight * self._warmup(progress)
            mask = self.task.valid_mask(batch.targets)
            for k, output in enumerate(outputs, 1):
                soft = self.task.soft_loss(output, mixture.detach(), self.temperature, mask=mask)
                losses[f"soft/{k}"] = weight * soft
        return StepOutput(outputs[0], losses)

    def _warmup(self, progress: Progress) -> Tensor:
        """The factor r of the soft terms, 0-d."""
        if not self.warmup_fraction:
            return progress.step.new_ones((), dtype=torch.float32)
        return sigmoid_rampup(progress.fraction / self.warmup_fraction)

    def predictors(self) -> dict[str, nn.Module]:
        """`ensemble`, all branches mixed by the gate, and `student`."""
        ensemble = Ensemble(self.student, self.tails, self.gate)
        return {"ensemble": ensemble, "student": self.student.network}

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """Both in one pass."""
        outputs, mixture = branch_outputs(self.student, self.tails, self.gate, inputs)
        return {"ensemble": mixture, "student": outputs[0]}


class Gate(nn.Module):
    """Weights of the branches for each image, 0 or more and with sum 1.

    Args:
        channels: of the trunk's feature.
        branches: number of weights.
    """

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, branches, bias=False),  # batch norm would cancel it
            nn.BatchNorm1d(branches),
            nn.ReLU(),
        )

    def forward(self, trunk: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, branches)."""
        scores: Tensor = self.layers(trunk.mean((2, 3)))
        return scores.float().softmax(1)


class Ensemble(nn.Module):
    """All branches as one network, whose output is their gated mixture.


    Args:
        student: the trunk and the first branch.
        tails: the other branches.
        gate: gives their weights.
    """

    def __init__(self, student: Taps, tails: nn.ModuleList, gate: nn.Module) -> None:
        super().__init__()
        self.student, self.tails, self.gate = student, tails, gate

    def forward(self, x: Tensor) -> Tensor:
        """The mixture of all outputs, (B, K, ...)."""
        return branch_outputs(self.student, self.tails, self.gate, x)[1]


def branch_outputs(
    student: Taps, tails: nn.ModuleList, gate: nn.Module, x: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The outputs (B, K, ...) of all branches, the student's first, and their mixture."""
    student_output, features = student.forward_features(x, raw=True)
    trunk = features[student.names[-2]]
    outputs = [student_output, *(tail(trunk) for tail in tails)]
    stacked = torch.stack(outputs).float()  # (branches, B, K, ...)
    weights = gate(student.as_map(trunk, x)).t()  # (branches, B)
    weights = weights.reshape(*weights.shape, *[1] * (stacked.dim() - 2))
    return outputs, (weights * stacked).sum(0)
