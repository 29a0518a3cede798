from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
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
from ..functional.gradient_routing import scale_grad
from ..modules.exits import Exits
from ..modules.information_checks import active_weights
from ..modules.mutual_information import (
    MutualInformationLoss,
    StageInformation,
)
from ..modules.online import OnlineMethod, term_prefix
from ..taps import Taps


@METHODS.add("muse-online")
class MuseOnline(OnlineMethod):
    r"""Maximize each stage's mutual information with peers' last features, and self-information.

    The online form of MUSE, Gong et al. 2021, https://arxiv.org/abs/2110.12606. Each network k
    learns, with features :math:`F_1 … F_T` and logits :math:`z_k`, and from the other networks l,

    .. math::
        L_k = a L_{task}(z_k) + b \, E_{l \ne k} L_{soft}(z_k, sg\, z_l)
            + \lambda \sum_{i<T} C(MI_i, SI_i)

    where MI_i is the information loss (Eq. 5) between the feature behind bottleneck i and the
    pooled last feature of another network, the mean over all others; SI_i is that between the same
    feature and its own pooled vector, and C their weighted sum (Eq. 4) or product (Eq. 6). Labels
    and logits train the last layers only. Every network has its own bottlenecks and critics, and
    all networks get the same inputs.

    The paper trains two networks; any number is ours. In self-distillation it lets both sides of MI
    learn, and we take it so here: :math:`MI_i` of one network also trains the whole trunk of the
    other. Only the targets of soft losses are detached. Without information and with a = b = 1 this
    is deep mutual learning (https://arxiv.org/abs/1706.00384) with simultaneous updates.

    Table 7 has two ResNet-20 on CIFAR-100 at 71.02 % with the sum and 70.71 % with the product,
    after 69.06 % alone and 70.84 % with mutual learning. No code is public; the weights are chosen
    here.

    Args:
        student: a network with two taps or more.
        peers: networks with two taps or more, whose number may differ from the student's.
        task: what the labels mean.
        combine: "add" (MI + SI, Eq. 4) or "mul" (MI × SI, Eq. 6).
        information_weight: weight λ of MI and SI together in the gradient of the networks; critics
            and bottlenecks learn at their full rate. 0 leaves mutual learning of logits.
            Chosen here, as in self-distillation.
        mi_weight: weight of MI in the sum, its exponent in the product; 0 leaves it out.
        si_weight: the same for SI.
        supervised_weight: weight a of the supervised losses; 0 leaves them out. Chosen here, as in
            mutual learning.
        soft_weight: weight b of the soft losses; 0 leaves them out, and outputs that do not compare
            have none. Chosen here, as in mutual learning.
        temperature: of the soft losses. Chosen here: 1 as in mutual learning.
        critic: "separable" (a dot product, fast), "concat" (1×1 convolutions, closest to the paper)
            or "global".
        critic_width: channels of the critics' hidden layers; none takes 128 for separable, 512 for
            the others.
        negatives: "all" other images of the batch, or "roll" for one each; none takes "all" for
            separable.
        estimator: "jsd" (Eq. 5), "infonce", "dv" or "nwj"; the last two can be negative, so not for
            "mul".
        global_critic_weight: weight of a global critic beside the local one; Deep InfoMax has 0.5,
            chosen here: none.
        bottleneck: "slim" (pools first) or "byot" (the BYOT port's, most likely the paper's).
        detach_peer: keep MI from training the other networks' last features.
    """

    provenance = Provenance.PAPER
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        peers: Sequence[Taps],
        task: Task,
        *,
        combine: Literal["add", "mul"] = "add",
        information_weight: float = 0.1,
        mi_weight: float = 1.0,
        si_weight: float = 1.0,
        supervised_weight: float = 1.0,
        soft_weight: float = 1.0,
        temperature: float = 1.0,
        critic: Literal["separable", "concat", "global"] = "separable",
        critic_width: int | None = None,
        negatives: Literal["all", "roll"] | None = None,
        estimator: Literal["jsd", "infonce", "dv", "nwj"] = "jsd",
        global_critic_weight: float = 0.0,
        bottleneck: Literal["slim", "byot"] = "slim",
        detach_peer: bool = False,
    ) -> None:
        super().__init__()
        if not peers:
            raise ConfigError("networks that teach one another are two or more: give --peer MODEL")
        if not (supervised_weight or soft_weight):
            raise ConfigError(
                "the last layers need a loss: give supervised_weight or soft_weight a value above 0"
            )
        weights = active_weights(mi_weight, si_weight, information_weight, combine, estimator)
        self.student, self.peers, self.task = student, nn.ModuleList(peers), task
        self.information_weight = information_weight
        self.supervised_weight, self.soft_weight = supervised_weight, soft_weight
        self.temperature, self.detach_peer = temperature, detach_peer
        networks = [student, *peers]
        self.exits = nn.ModuleList(
            Exits(network, task, bottleneck if weights else None, predict=False)
            for network in networks
        )
        last = [list(network.shapes.values())[-1][0] for network in networks]  # channels
        loss = partial(
            MutualInformationLoss,
            critic=critic,
            critic_width=critic_width,
            negatives=negatives,
            estimator=estimator,
            global_critic_weight=global_critic_weight,
        )
        self.critics = nn.ModuleList(
            StageInformation(
                weights,
                [last[k]] * (len(network.names) - 1),
                last[:k] + last[k + 1 :],
                combine=combine,
                loss=loss,
            )
            for k, network in enumerate(networks)
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft`, `mutual/i` and `self/i`; `peer1/task`, … of the peers."""
        networks = self._networks()
        outputs, features, vectors = zip(  # vectors (B, C_last)
            *(taps.forward_pooled(batch.inputs) for taps, _, _ in networks), strict=True
        )
        if self.detach_peer:
            vectors = tuple(vector.detach() for vector in vectors)
        vectors = tuple(scale_grad(vector, self.information_weight) for vector in vectors)
        losses: dict[str, Tensor] = {}
        monitors: dict[str, Tensor] = {}
        for k, (_, exits, critics) in enumerate(networks):
            terms = self._output_losses(outputs[k], outputs[:k] + outputs[k + 1 :], batch.targets)
            # The bottlenecks, which nothing else trains, are a part of the critics.
            maps, _ = exits(
                {n: scale_grad(x, self.information_weight) for n, x in features[k].items()}
            )
            stages = critics(maps, [*vectors[:k], *vectors[k + 1 :]], progress)
            terms |= critics.losses(stages)
            losses |= {term_prefix(k) + name: term for name, term in terms.items()}
            values = critics.monitors(stages)
            monitors |= {term_prefix(k) + name: value for name, value in values.items()}
        return StepOutput(outputs[0], losses, monitors)

    def _output_losses(
        self, outputs: Any, peer_outputs: Sequence[Any], targets: Any
    ) -> dict[str, Tensor]:
        """`task` and `soft` of one network; no gradient goes into the others' outputs."""
        losses: dict[str, Tensor] = {}
        if self.supervised_weight:
            losses["task"] = self.supervised_weight * self.task.loss(outputs, targets)
        mask = self.task.valid_mask(targets)
        soft_losses = [
            self.task.soft_loss(outputs, peer.detach(), self.temperature, mask=mask)
            for peer in peer_outputs
            if self.soft_weight and self.task.outputs_compatible(outputs, peer)
        ]
        if soft_losses:
            losses["soft"] = self.soft_weight * torch.stack(soft_losses).mean()
        return losses

    def _networks(self) -> list[tuple[Taps, Exits, StageInformation]]:
        """Each network with its bottlenecks and critics, the student first."""
        parts = zip([self.student, *self.peers], self.exits, self.critics, strict=True)
        return list(parts)  # type: ignore[arg-type]

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Warnings of each network's MI and SI at chance or near zero."""
        warnings: dict[str, str] = {}
        for k, (_, _, critics) in enumerate(self._networks()):
            prefix = term_prefix(k)
            values = {
                n.removeprefix(prefix): v for n, v in monitors.items() if n.startswith(prefix)
            }
            warnings |= {prefix + name: text for name, text in critics.diagnose(values).items()}
        return warnings
