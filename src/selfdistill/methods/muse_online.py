from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
from ..modules.exits import Exits
from ..modules.stagewise import StageInformation, powers_of
from ..taps import Taps


@METHODS.add("muse-online")
class MuseOnline(Method):
    r"""Train networks together, each stage informative about the other networks' last features.

    The online form of MUSE, Gong et al. 2021, https://arxiv.org/abs/2110.12606. Each network k
    learns, with features :math:`F_1 … F_T` and logits :math:`z_k`, and from the other networks l,

    .. math::
        L_k = a L_{task}(z_k) + b \, E_{l \ne k} L_{soft}(z_k, sg\, z_l)
            + \lambda \sum_{i<T} C(MI_i, SI_i)

    where MI_i is the information loss (Eq. 5) between the feature behind bottleneck i and the
    pooled last feature of another network, the mean over all others; SI_i is that between the same
    feature and its own pooled vector, and C their sum (Eq. 4) or product (Eq. 6). Labels and logits
    teach the last layers only. Every network has bottlenecks and critics of its own, and what it is
    shown is what the others are shown.

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
        information: weight λ of MI and SI together; 0 leaves mutual learning of logits. Chosen
            here, as in self-distillation.
        mutual: weight of MI in the sum, its exponent in the product; 0 leaves it out.
        self_information: the same for SI.
        supervised: weight a of the supervised losses; 0 leaves them out. Chosen here, as in mutual
            learning.
        soft: weight b of the soft losses; 0 leaves them out, and outputs that do not
            compare have none. Chosen here, as in mutual learning.
        temperature: of the soft losses. Chosen here: 1 as in mutual learning.
        critic: "separable" (a dot product, fast), "concat" (1×1 convolutions, closest to the paper)
            or "global".
        width: of the critics; none takes 128 for separable, 512 for the others.
        negatives: "all" other images of the batch, or "roll" for one each; none takes "all" for
            separable.
        estimator: "jsd" (Eq. 5), "infonce", "dv" or "nwj"; the last two can be negative, so not for
            "mul".
        global_share: weight of a global critic beside the local one; Deep InfoMax has 0.5, chosen
            here: none.
        bottleneck: "slim" (pools first) or "byot" (the BYOT port's, most likely the paper's).
        detach_peer: keep MI from training the other networks' last features.
    """

    kind = "online"
    provenance = Provenance.PAPER
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        peers: Sequence[Taps],
        task: Task,
        *,
        combine: Literal["add", "mul"] = "add",
        information: float = 0.1,
        mutual: float = 1.0,
        self_information: float = 1.0,
        supervised: float = 1.0,
        soft: float = 1.0,
        temperature: float = 1.0,
        critic: Literal["separable", "concat", "global"] = "separable",
        width: int | None = None,
        negatives: Literal["all", "roll"] | None = None,
        estimator: Literal["jsd", "infonce", "dv", "nwj"] = "jsd",
        global_share: float = 0.0,
        bottleneck: Literal["slim", "byot"] = "slim",
        detach_peer: bool = False,
    ) -> None:
        super().__init__()
        if not peers:
            raise ConfigError("networks that teach one another are two or more: give --peer MODEL")
        if not (supervised or soft):
            raise ConfigError("the last layers need a loss: give supervised or soft a weight")
        powers = powers_of(
            mutual, self_information, information=information, combine=combine, estimator=estimator
        )
        self.student, self.peers, self.task = student, nn.ModuleList(peers), task
        self.combine, self.information, self.detach_peer = combine, information, detach_peer
        self.supervised, self.soft, self.temperature = supervised, soft, temperature
        networks = [student, *peers]
        self.exits = nn.ModuleList(
            Exits(network, task, bottleneck if powers else None, predict=False)
            for network in networks
        )
        last = [list(network.shapes.values())[-1][0] for network in networks]  # channels
        self.critics = nn.ModuleList(
            StageInformation(
                powers,
                [last[k]] * (len(network.names) - 1),
                last[:k] + last[k + 1 :],
                critic=critic,
                width=width,
                negatives=negatives,
                estimator=estimator,
                global_share=global_share,
            )
            for k, network in enumerate(networks)
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft`, `mutual/i` and `self/i`, or `product/i`; `peer1/task`, … of the peers."""
        learners = self._learners()
        said = [network.forward_features(batch.inputs) for network, _, _ in learners]
        deep = [list(features.values())[-1].mean((2, 3)) for _, features in said]  # (B, C_last)
        deep = [d.detach() for d in deep] if self.detach_peer else deep
        losses: dict[str, Tensor] = {}
        monitors: dict[str, Tensor] = {}
        for k, (_, exits, critics) in enumerate(learners):
            out, features = said[k]
            others = [other for other, _ in said[:k] + said[k + 1 :]]
            terms = self._taught(out, others, batch.targets)
            maps, _ = exits(features)
            found = critics(maps, deep[:k] + deep[k + 1 :], progress)
            terms |= critics.terms(found, combine=self.combine, information=self.information)
            losses |= {_place(k) + name: term for name, term in terms.items()}
            seen = critics.monitors(found)
            monitors |= {_place(k) + name: value for name, value in seen.items()}
        return StepOutput(said[0][0], losses, monitors)

    def _taught(self, out: Any, others: list[Any], targets: Any) -> dict[str, Tensor]:
        """What labels and the other networks say to one network's last layer."""
        terms: dict[str, Tensor] = {}
        if self.supervised:
            terms["task"] = self.supervised * self.task.loss(out, targets)
        alike = [other.detach() for other in others if self.task.outputs_compatible(out, other)]
        if self.soft and alike:
            each = [self.task.soft_loss(out, other, self.temperature) for other in alike]
            terms["soft"] = self.soft * torch.stack(each).mean()
        return terms

    def _learners(self) -> list[tuple[Taps, Exits, StageInformation]]:
        """Each network with its bottlenecks and critics, the student first."""
        parts = zip([self.student, *self.peers], self.exits, self.critics, strict=True)
        return list(parts)  # type: ignore[arg-type]

    def predictors(self) -> dict[str, nn.Module]:
        """`peer1`, `peer2`, … and `student`."""
        peers = {f"peer{k}": taps.network for k, (taps, *_) in enumerate(self._learners()) if k}
        return {**peers, "student": self.student.network}

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """Terms that teach nothing, of each network."""
        found: dict[str, str] = {}
        for k, (_, _, critics) in enumerate(self._learners()):
            start = _place(k)
            own = {n.removeprefix(start): v for n, v in monitors.items() if n.startswith(start)}
            found |= {start + name: words for name, words in critics.diagnose(own).items()}
        return found


def _place(k: int) -> str:
    """What goes before the names of network k's terms."""
    return f"peer{k}/" if k else ""
