from typing import Any

import torch
from torch import Tensor, nn

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Frozen,
    Method,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
    load_tensors,
)
from ..core.fake_quantization import without_ranges
from ..functional.divergence import mask_weights, soft_cross_entropy
from ..taps.fx_split import copy_without_hooks


@METHODS.add("snapshot")
class SnapshotDistillation(Method):
    r"""Split training into generations, each distilled from the final weights of the previous one.

    Yang et al. 2019, https://arxiv.org/abs/1812.00123. The first generation is plain training; in
    the others the network as it stood at the end of the last generation teaches:

    .. math:: L = \left(1 + \frac{1}{\tau}\right) CE(z, y) - \sum_k softmax(z_{teacher} / \tau)_k
        \log softmax(z)_k

    Only the teacher is softened, which is the paper's point: it keeps the teacher's distribution
    different from the student's although both are of one training run. So there is no factor τ².

    A generation is one cycle of the learning rate, which with the cosine schedule restarts in each
    one; the step schedule does not, and is refused. It ends with an optimizer step, whether or not
    an epoch ends with it. The teacher costs a forward pass a step from the second generation on,
    and is kept in checkpoints.

    No authors' code is public. The form of the loss is that of a port, which has a temperature of 3
    and four generations; temperature and number of generations here are recalled from the paper.

    Args:
        student: the network.
        task: what the labels mean.
        num_generations: number of generations of equal length, 1 or more; 2 as recalled.
        supervised_weight: weight ≥ 0 of the supervised loss from the second generation on; none
            takes 1 + 1/τ.
        soft_weight: weight ≥ 0 of the soft loss; the port's 1.
        temperature: τ > 0 of the teacher; 2 as recalled.
    """

    kind = "self"
    provenance = Provenance.NOTES
    needs = Needs(class_scores=True)
    generation: Tensor

    def __init__(
        self,
        student: nn.Module,
        task: Task,
        *,
        num_generations: int = 2,
        supervised_weight: float | None = None,
        soft_weight: float = 1.0,
        temperature: float = 2.0,
    ) -> None:
        super().__init__()
        if num_generations < 1:
            raise ConfigError(
                f"num_generations={num_generations} leaves nothing to train; give 1 or more"
            )
        if temperature <= 0:
            raise ConfigError(f"temperature={temperature:g} must be above 0; the default is 2")
        self.student, self.task, self.cycles = student, task, num_generations
        self.needs = self.needs._replace(run_length=num_generations > 1)
        self.soft_weight, self.temperature = soft_weight, temperature
        self.supervised_weight = (
            1 + 1 / temperature if supervised_weight is None else supervised_weight
        )
        self.teacher = Frozen(copy_without_hooks(student), saved=True)
        self.register_buffer("generation", torch.zeros((), dtype=torch.int64))
        # Whether `generation` is above 0, for `forward` to read without waiting for the device; a
        # compiled step is compiled once more when it changes.
        self.has_teacher = False
        self.register_load_state_dict_post_hook(_restore_has_teacher)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft`, which is zero in the first generation."""
        outputs = self.student(batch.inputs)
        task = self.task.loss(outputs, batch.targets)
        if not self.has_teacher:
            return StepOutput(outputs, {"task": task, "soft": torch.zeros_like(task)})
        with torch.no_grad():
            reference = self.teacher(batch.inputs)
        mask = self.task.valid_mask(batch.targets)
        soft = asymmetric_cross_entropy(outputs, reference, self.temperature, mask)
        losses = {"task": self.supervised_weight * task, "soft": self.soft_weight * soft}
        return StepOutput(outputs, losses)

    def after_step(self, progress: Progress) -> None:
        """Copies the student to the teacher at the end of a generation that is not the last."""
        if self.cycles == 1:
            return
        step, total = int(progress.step), int(progress.total)
        before, after = (done * self.cycles // total for done in (step, step + 1))
        if before < after < self.cycles:
            # of a student in simulated int8 the float32 weights teach
            load_tensors(self.teacher.network, without_ranges(self.student.state_dict()))
            self.generation.fill_(after)
            self.has_teacher = True


def asymmetric_cross_entropy(
    outputs: Tensor, reference: Tensor, temperature: float, mask: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the outputs with the softened reference, both (B, K, ...), in fp32.

    The mean over samples and positions, of scenes over those in the mask (B, H, W). The gradient
    flows to both.
    """
    target = (reference.float() / temperature).softmax(1)
    return soft_cross_entropy(outputs, target, mask_weights(mask, outputs.shape[2:]))


def _restore_has_teacher(method: nn.Module, keys: Any) -> None:
    assert isinstance(method, SnapshotDistillation)
    method.has_teacher = bool(method.generation)
