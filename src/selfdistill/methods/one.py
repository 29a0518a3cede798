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
from ..taps import Taps, as_map
from ..taps.fx_split import reinitialized_copy, split_at


@METHODS.add("one")
class OnTheFlyEnsemble(Method):
    r"""Several last stages on one trunk, mixed by a gate into the teacher of them all.

    ONE, Lan et al. 2018, https://arxiv.org/abs/1806.04606, and its authors' code. The last
    stage and the classifier are there m times; a gate on the trunk's feature gives each image
    weights :math:`w_k` that sum to 1, and with :math:`z_e = \sum_k w_k z_k`

    .. math::
        L = \sum_{k \le m} L_{task}(z_k) + L_{task}(z_e)
            + r \sum_{k \le m} L_{soft}(z_k, sg\, z_e)

    The mixture is a constant in the soft terms only: its own supervised term trains the gate and
    all branches. The code raises the weight r of the soft terms over the first 80 of its 300
    epochs, :math:`r = \exp(-5 (1 - e / 80)^2)`, where the paper has none; we follow the code, by
    the step. It also adds 1e-7 to the mixture's probabilities before their logarithm; we do not.

    The student's own end is one of the branches, chosen before training, and what is exported
    (the paper's ONE); all branches and the gate together stay as the predictor `ensemble` (its
    ONE-E). A further branch starts from other weights, a random order of the student's own.

    Args:
        student: a network with two taps or more that can be cut at the last but one: a branch is
            all behind it.
        task: what the labels mean; its outputs are class scores.
        branches: how many, m, the student's own among them; the paper's 3. 1 leaves the student to
            the labels.
        temperature: of the soft terms; the paper's 3.
        soft: weight of the soft terms when it is at its full height; 0 leaves them out.
        ramp: the part of the run over which the soft terms grow to that, in [0, 1]; 0 has them full
            from the start, as in the paper. The code's 80 of 300 epochs.
    """

    kind = "self"
    provenance = Provenance.CODE
    needs = Needs(batch=2, class_scores=True)  # the gate's batch norm wants two images

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        branches: int = 3,
        temperature: float = 3.0,
        soft: float = 1.0,
        ramp: float = 80 / 300,
    ) -> None:
        super().__init__()
        if len(student.names) < 2:
            raise ConfigError(
                "a branch starts at the last tap but one, and there is only one tap; "
                "`selfdistill taps MODEL` lists the modules to tap"
            )
        if branches < 1:
            raise ConfigError(f"branches counts the student's own end and is not {branches}")
        if not 0 <= ramp <= 1:
            raise ConfigError(f"ramp is a part of the run between 0 and 1, not {ramp}")
        self.student, self.task = student, task
        self.soft, self.temperature, self.ramp = soft, temperature, ramp
        _, tail = split_at(student.network, student.names[-2:-1])
        self.tails = nn.ModuleList(reinitialized_copy(tail) for _ in range(branches - 1))
        self.gate = Gate(student.shapes[student.names[-2]][0], branches)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `task/k` of the further branches, `ensemble`, and `soft/k` of all branches."""
        outputs, mixture = said(self.student, self.tails, self.gate, batch.inputs)
        losses = {"task": self.task.loss(outputs[0], batch.targets)}
        for k, out in enumerate(outputs[1:], 2):
            losses[f"task/{k}"] = self.task.loss(out, batch.targets)
        losses["ensemble"] = self.task.loss(mixture, batch.targets)
        if self.soft:
            weight = self.soft * self._height(progress)
            for k, out in enumerate(outputs, 1):
                soft = self.task.soft_loss(out, mixture.detach(), self.temperature)
                losses[f"soft/{k}"] = weight * soft
        return StepOutput(outputs[0], losses)

    def _height(self, progress: Progress) -> Tensor:
        """The ramp r of the soft terms, 0-d."""
        done = progress.fraction / self.ramp if self.ramp else torch.ones_like(progress.fraction)
        return (-5 * (1 - done.clamp(max=1)).square()).exp()

    def predictors(self) -> dict[str, nn.Module]:
        """`ensemble`, all branches mixed by the gate, and `student`."""
        ensemble = Ensemble(self.student, self.tails, self.gate)
        return {"ensemble": ensemble, "student": self.student.network}

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """Both in one pass."""
        outputs, mixture = said(self.student, self.tails, self.gate, inputs)
        return {"ensemble": mixture, "student": outputs[0]}


class Gate(nn.Module):
    """Weights of the branches, one set an image, each 0 or more and all together 1.

    Args:
        channels: of the trunk's feature.
        branches: how many weights.
    """

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, branches, bias=False),  # the batch norm would take it off again
            nn.BatchNorm1d(branches),
            nn.ReLU(),
        )

    def forward(self, trunk: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, branches)."""
        scores: Tensor = self.layers(trunk.mean((2, 3)))
        return scores.float().softmax(1)


class Ensemble(nn.Module):
    """All branches as one network, whose output is their mixture.

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
        return said(self.student, self.tails, self.gate, x)[1]


def said(
    student: Taps, tails: nn.ModuleList, gate: nn.Module, x: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The outputs (B, K, ...) of all branches, the student's first, and their mixture."""
    out, features = student.forward_features(x, raw=True)
    trunk = features[student.names[-2]]
    outputs = [out, *(tail(trunk) for tail in tails)]
    stacked = torch.stack(outputs).float()  # (branches, B, K, ...)
    weights = gate(as_map(trunk, x.shape[-2:])).t()  # (branches, B)
    weights = weights.reshape(*weights.shape, *[1] * (stacked.dim() - 2))
    return outputs, (weights * stacked).sum(0)
