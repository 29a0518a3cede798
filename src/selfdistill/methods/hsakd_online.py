from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..functional.divergence import kl_divergence
from ..modules.online import OnlineMethod, term_prefix
from ..modules.rotations import TURNS, JointHeads, check_turnable, joint_labels, turned
from ..taps import Taps


@METHODS.add("hsakd-online")
class MutualJointLabels(OnlineMethod):
    r"""Train networks together that match each other's joint distributions of class and turn.

    The online form of HSAKD, Yang et al. 2021, https://arxiv.org/abs/2107.13715. Every image is
    turned by 0°, 90°, 180° and 270°, and each network has heads behind its stages that tell class
    and turn together. Network m learns, with x_k the image turned k times,

    .. math::
        L_m = L_{task}(z^m(x)) + \frac{1}{4} \sum_k \Big[ \sum_l CE(q_l^m(x_k), 4 y + k)
            + a \sum_l KL_\tau(q_l^n(x_k) \| q_l^m(x_k)) + b \, KL_\tau(z^n(x_k) \| z^m(x_k)) \Big]

    averaged over the other networks n, whose outputs are targets without a gradient.

    Args:
        student: the network that is kept; it can be cut at all of its taps.
        peers: networks of any architecture with as many taps, one or more.
        task: what the labels mean; one class an image.
        joint_weight: weight a ≥ 0 of the heads' terms; the paper's 1.
        soft_weight: weight b ≥ 0 of the soft loss of the outputs; the paper's 1.
        temperature: τ > 0; the paper's 3.
    """

    provenance = Provenance.CODE
    needs = Needs(image_labels=True, single_label=True)
    default_taps = "stages"

    def __init__(
        self,
        student: Taps,
        peers: Sequence[Taps],
        task: Task,
        *,
        joint_weight: float = 1.0,
        soft_weight: float = 1.0,
        temperature: float = 3.0,
    ) -> None:
        super().__init__()
        check_turnable(task)
        for peer in peers:
            if len(peer.names) != len(student.names):
                raise ConfigError(
                    f"the student has {len(student.names)} taps and a peer has "
                    f"{len(peer.names)}, and heads are matched by their number; name as many with "
                    "--taps, or take a peer of the student's kind"
                )
        self.student, self.peers, self.task = student, nn.ModuleList(peers), task
        self.joint_weight, self.soft_weight = joint_weight, soft_weight
        self.temperature = temperature
        self.heads = nn.ModuleList(JointHeads(network, task) for network in (student, *peers))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `label/l`, `joint/l` and `soft` of the student; `peer1/task`, … of the others."""
        inputs, labels = turned([batch.inputs] * TURNS), joint_labels(batch.targets)
        outputs, joint_outputs = [], []
        for network, heads in zip((self.student, *self.peers), self.heads, strict=True):
            output, features = network.forward_features(inputs, raw=True)  # type: ignore[operator]
            outputs.append(output)
            joint_outputs.append(heads(list(features.values())))
        losses: dict[str, Tensor] = {}
        for m, (output, joint) in enumerate(zip(outputs, joint_outputs, strict=True)):
            prefix = term_prefix(m)
            losses[f"{prefix}task"] = self.task.loss(output[: len(batch.inputs)], batch.targets)
            for i, q in enumerate(joint, 1):
                losses[f"{prefix}label/{i}"] = F.cross_entropy(q.float(), labels)
            if self.joint_weight:
                for i, levels in enumerate(zip(*joint_outputs, strict=True), 1):
                    losses[f"{prefix}joint/{i}"] = self.joint_weight * self._mutual(levels, m)
            if self.soft_weight:
                losses[f"{prefix}soft"] = self.soft_weight * self._mutual(outputs, m)
        return StepOutput(outputs[0][: len(batch.inputs)], losses)

    def _mutual(self, outputs: Sequence[Tensor], m: int) -> Tensor:
        """The mean divergence of network m's outputs from those of the others."""
        others = [other.detach() for n, other in enumerate(outputs) if n != m]
        divergences = [kl_divergence(outputs[m], other, self.temperature) for other in others]
        return torch.stack(divergences).mean()
