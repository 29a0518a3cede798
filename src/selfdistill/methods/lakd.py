from collections.abc import Sequence

import torch
from torch import Tensor

from ..core import METHODS, Batch, ConfigError, Progress, Provenance, StepOutput, Task
from ..functional.attention import attention_map, pooled_to
from ..functional.local_gradient import backward_now
from ..modules.exits import ExitMethod, Exits
from ..modules.feature_distillation import FeatureDistillation
from ..modules.pairs import check_positions, paired_shapes
from ..taps import Taps, Teacher
from ..taps.fx_split import stage_functions


@METHODS.add("lakd")
class LocalAttentionDistillation(FeatureDistillation, ExitMethod):
    r"""Train local modules with independent gradients, each on its teacher stage's attention map.

    LAKD, Zhang et al. 2024, https://arxiv.org/abs/2408.11478. A reconstruction from the abstract:
    it states that the student is divided into local modules with independent gradients, that a
    non-directional activation mapping gives them coarse guidance from the teacher, and that
    training goes from simple to complex. The formulas are ours. Module k < K ends at tap k, and the
    last module is the rest of the network; each reads the detached output of the one before. With a
    local head :math:`h_k` on the map at the tap, and the attention map A of method `at`,

    .. math::
        L_k = w_k \left[ a L_{task}(h_k(F_s^k))
            + \beta \overline{\left( A(F_s^k) - A(F_t^k) \right)^2} \right], \quad k < K

    .. math::
        L_K = w_K \left[ L_{task}(z_s) + b L_{soft}(z_s, z_t)
            + \beta \overline{\left( A(F_s^K) - A(F_t^K) \right)^2} \right]

    with the mean over images and positions. The weight :math:`w_k = \min(1, K t / (k r))` at
    fraction t of the run goes from shallow to deep if a `warmup_fraction` r is given, else it is 1.

    Nothing of module k depends on what comes after it, so its backward pass is run before the next
    module starts, and its activations are freed: kept are those of one module at a time and the
    gradients of the others. Compiled, that part of the step runs as it is; with
    ``local_backward=False``, which has the same gradients, all of it is compiled, and all
    activations are kept. The local heads stay behind as exits.

    Args:
        student: a network that can be cut at its taps, two or more: the ends of its stages.
        teacher: a trained network with as many taps as the student.
        task: what the labels mean.
        attention_weight: weight β ≥ 0 of the attention terms; 1000 as in `at`, chosen here.
        soft_weight: weight b ≥ 0 of the soft loss of the last module; chosen here.
        temperature: τ > 0 of the soft loss; chosen here.
        supervised_weight: weight a ≥ 0 of a local head's supervised loss; 0 leaves out the heads,
            and with them the exits. Chosen here.
        warmup_fraction: fraction r of the run, in [0, 1], after which the last module has its full
            weight, and module k after k/K of it; 0, all from the start, is chosen here.
        local_backward: whether a module's backward pass is run before the next module starts.
    """

    provenance = Provenance.ABSTRACT
    default_taps = "stages"

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        attention_weight: float = 1000.0,
        soft_weight: float = 1.0,
        temperature: float = 4.0,
        supervised_weight: float = 1.0,
        warmup_fraction: float = 0.0,
        local_backward: bool = True,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        if not (attention_weight or supervised_weight):
            raise ConfigError(
                "local modules need a loss: give attention_weight or supervised_weight a value "
                "above 0"
            )
        if not 0 <= warmup_fraction <= 1:
            raise ConfigError(
                f"warmup_fraction is a fraction of the run between 0 and 1, not {warmup_fraction:g}"
            )
        check_positions(paired_shapes(student, teacher))
        self.attention_weight, self.supervised_weight = attention_weight, supervised_weight
        self.warmup_fraction, self.local_backward = warmup_fraction, local_backward
        self.needs = self.needs._replace(run_length=bool(warmup_fraction))
        self.exits = Exits(student, task, None, predict=bool(supervised_weight))
        self.stages = stage_functions(student.network, student.names)
        self._run_modules = run_local_modules
        if local_backward:  # the compiler cannot see through a backward pass
            self._run_modules = torch.compiler.disable(run_local_modules)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft` if it has a weight, `attention/K`, and `local/k` of each other module."""
        teacher_outputs, teacher_features = self.teacher.forward_features(batch.inputs)
        maps = list(teacher_features.values())
        x, local_losses, monitors = self._run_modules(self, batch, progress, maps)
        feature = self.stages[-2](self.student, x)
        outputs = self.stages[-1](self.student, feature)
        losses = self._output_losses(outputs, teacher_outputs, batch)
        if self.attention_weight:
            losses[f"attention/{len(maps)}"] = self._attention_loss(feature, maps[-1], batch)
        weight = self.module_weight(len(maps), progress)
        losses = {name: weight * loss for name, loss in losses.items()}
        return StepOutput(outputs, losses | local_losses, monitors)

    def local_terms(self, k: int, x: Tensor, target: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of module k with output x, before its warm-up."""
        terms = {}
        if self.supervised_weight:
            outputs = self.exits.heads[k - 1](self.student.as_map(x, batch.inputs))
            terms[f"task/{k}"] = self.supervised_weight * self.task.loss(outputs, batch.targets)
        if self.attention_weight:
            terms[f"attention/{k}"] = self._attention_loss(x, target, batch)
        return terms

    def _attention_loss(self, x: Tensor, target: Tensor, batch: Batch) -> Tensor:
        x = self.student.as_map(x, batch.inputs)
        gap = attention_map(pooled_to(x, target)) - attention_map(pooled_to(target, x))  # (B, H·W)
        return self.attention_weight * gap.square().mean()

    def module_weight(self, k: int, progress: Progress) -> Tensor | float:
        """The factor w of module k, in (0, 1]."""
        if not self.warmup_fraction:
            return 1.0
        done = (progress.step + 1) / progress.total  # a step without any loss would be lost
        return (done * len(self.student.names) / (k * self.warmup_fraction)).clamp(max=1)


def run_local_modules(
    method: LocalAttentionDistillation,
    batch: Batch,
    progress: Progress,
    targets: Sequence[Tensor],
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """All modules but the last one: what that one reads, their losses, and the terms of these.

    Args:
        method: whose modules they are.
        batch, progress: of this step.
        targets: the teacher's feature (B, C, H, W) of every stage.
    """
    x = batch.inputs
    losses: dict[str, Tensor] = {}
    monitors: dict[str, Tensor] = {}
    trained = [p for p in method.parameters() if p.requires_grad]
    for k, (stage, target) in enumerate(zip(method.stages, targets[:-1], strict=False), 1):
        x = stage(method.student, x.detach())
        terms = method.local_terms(k, x, target, batch)
        loss = torch.stack(list(terms.values())).sum()
        loss = backward_now(loss, trained) if method.local_backward else loss
        losses[f"local/{k}"] = method.module_weight(k, progress) * loss
        monitors |= {name: term.detach() for name, term in terms.items()}
    return x.detach(), losses, monitors
