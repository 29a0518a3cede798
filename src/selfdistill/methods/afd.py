from collections.abc import Sequence
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
from ..functional.attention import pooled_to
from ..functional.gradient_routing import call_with_frozen_parameters
from ..taps import Taps


@METHODS.add("afd")
class OnlineAdversarialDistillation(Method):
    r"""Networks trained together, each of which learns to make last maps like another one's.

    Chung et al. 2020, "Feature-map-level Online Adversarial Knowledge Distillation",
    https://arxiv.org/abs/2002.01775. Beside labels and the soft outputs of the others, network k
    with last map :math:`G_k` has a discriminator :math:`D_k`, which learns to tell the map of the
    network before it (cyclic: the student comes after the last peer), *real*, from its own, *fake*;
    the network learns to be taken for real:

    .. math::
        L_{D_k} &= E[(1 - D_k(sg\, G_{k-1}))^2] + E[D_k(sg\, T_k G_k)^2] \\
        L_k &= L_{task}(z_k) + a \, E_{l \ne k} KL_\tau(sg\, z_l \,\|\, z_k)
            + b \, E[(1 - D_k(T_k G_k))^2]

    Distributions of maps are compared, never two maps of one image. The larger of two maps is
    pooled to the size of the smaller. Where channels differ, :math:`T_k`, a 1×1 convolution with BN
    and ReLU, brings :math:`G_k` to the channels of :math:`G_{k-1}`; it is a part of network k's
    side and learns with it to be taken for real. The paper's equations let the real map pass such a
    layer, too. There nobody but the discriminator could train it, whose first convolution does as
    much, so here the real map goes in as it is.

    The paper takes turns: SGD moves the networks by labels and soft outputs, then Adam (rate 2e-5,
    weight decay .1, as far as we know) the discriminators, and the networks by what those say. Here
    one backward pass and one optimizer do all three. The gradients are kept apart instead: that of
    :math:`L_{D_k}` ends at the maps, and that of the last term goes through :math:`D_k` and leaves
    its parameters alone. Classifiers learn from labels and soft outputs only.

    No code is public. The layers of the discriminator (two 3×3 convolutions with BN and leaky ReLU,
    a global mean, a linear layer and a sigmoid) follow notes about the paper, their width is chosen
    here, and so is the mean over the others in the soft term of three networks or more. Real and
    fake maps pass a discriminator as batches of their own.

    Args:
        student: a network whose last tap is compared.
        peers: networks whose last taps are compared, one or more.
        task: what the labels mean.
        soft: weight a of the soft terms; 1 by the notes.
        temperature: of the soft terms; 3 by the notes.
        adversarial: weight b of being taken for real; 0 leaves mutual learning, without
            discriminators. 1 is chosen here: the paper has an optimizer of its own in its place.
        discriminator_lr: the discriminators' part of the learning rate; chosen here.
        width: channels of a discriminator's convolutions; chosen here.
    """

    kind = "online"
    provenance = Provenance.NOTES
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        peers: Sequence[Taps],
        task: Task,
        *,
        soft: float = 1.0,
        temperature: float = 3.0,
        adversarial: float = 1.0,
        discriminator_lr: float = 0.1,
        width: int = 128,
    ) -> None:
        super().__init__()
        if not peers:
            raise ConfigError("networks that teach one another are two or more: give --peer MODEL")
        self.student, self.peers, self.task = student, nn.ModuleList(peers), task
        self.soft, self.temperature, self.adversarial = soft, temperature, adversarial
        self.discriminator_lr = discriminator_lr
        own = [list(taps.shapes.values())[-1][0] for taps in (student, *peers)]  # channels
        pairs = [(own[k], own[k - 1]) for k in range(len(own) if adversarial else 0)]
        self.transfers = nn.ModuleList(transfer(*pair) for pair in pairs)
        self.discriminators = nn.ModuleList(MapDiscriminator(real, width) for _, real in pairs)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft`, `adversarial` and `discriminator`; `peer1/task`, … of the peers.

        Monitored are the mean scores of maps, `real` and `fake`: 1 where taken for real.
        """
        said = [network.forward_features(batch.inputs) for network in self._networks()]
        maps = [list(features.values())[-1] for _, features in said]
        losses: dict[str, Tensor] = {}
        monitors: dict[str, Tensor] = {}
        for k, (out, _) in enumerate(said):
            place = f"peer{k}/" if k else ""
            losses[f"{place}task"] = self.task.loss(out, batch.targets)
            if self.soft:
                others = [other for j, (other, _) in enumerate(said) if j != k]
                losses[f"{place}soft"] = self.soft * self._told(out, others)
            if self.adversarial:
                real, fake, judged = self._scores(k, maps[k], maps[k - 1])
                losses[f"{place}adversarial"] = self.adversarial * fooling_loss(judged)
                losses[f"{place}discriminator"] = discriminator_loss(real, fake)
                monitors[f"{place}real"] = real.detach().mean()
                monitors[f"{place}fake"] = fake.detach().mean()
        return StepOutput(said[0][0], losses, monitors)

    def _told(self, out: Any, others: list[Any]) -> Tensor:
        """The mean over the other networks of the soft loss towards each."""
        each = [self.task.soft_loss(out, o.detach(), self.temperature) for o in others]
        return torch.stack(each).mean()

    def _scores(self, k: int, own: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What D_k says of the real map, and twice of the fake one: to learn, and to teach."""
        own, real = pooled_to(own, real), pooled_to(real, own).detach()
        fake = self.transfers[k](own)
        judge = self.discriminators[k]
        return judge(real), judge(fake.detach()), call_with_frozen_parameters(judge, fake)

    def param_groups(self) -> list[dict[str, Any]]:
        """The networks and their transfer layers; the discriminators, with a rate of their own."""
        judges = list(self.discriminators.parameters())
        theirs = {id(p) for p in judges}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in theirs]
        slow = {"params": judges, "lr_scale": self.discriminator_lr}
        return [{"params": rest}, slow] if judges else [{"params": rest}]

    def predictors(self) -> dict[str, nn.Module]:
        """`peer1`, `peer2`, … and `student`."""
        peers = {f"peer{k}": taps.network for k, taps in enumerate(self._networks()[1:], 1)}
        return {**peers, "student": self.student.network}

    def _networks(self) -> list[Taps]:
        return [self.student, *self.peers]  # type: ignore[list-item]


class MapDiscriminator(nn.Module):
    """Two convolutions, a global mean, a linear layer and a sigmoid: a map to a score in (0, 1).

    Args:
        channels: of the map.
        width: of the convolutions.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
        )
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B,), in fp32."""
        out: Tensor = self.score(self.layers(x).mean((2, 3)))
        return out.squeeze(1).float().sigmoid()


def transfer(channels: int, wanted: int) -> nn.Module:
    """From a map's channels to those of another one; nothing where they are the same."""
    if channels == wanted:
        return nn.Identity()
    convolution = nn.Conv2d(channels, wanted, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(wanted), nn.ReLU())


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Least squares (Mao et al. 2017, https://arxiv.org/abs/1611.04076): real to 1, fake to 0."""
    return (1 - real).square().mean() + fake.square().mean()


def fooling_loss(fake: Tensor) -> Tensor:
    """Fake to 1."""
    return (1 - fake).square().mean()
