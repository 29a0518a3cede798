from collections.abc import Sequence
from typing import Any

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
from ..functional.attention import pooled_to
from ..functional.gradient_routing import call_with_frozen_parameters
from ..modules.online import OnlineMethod, mean_soft_loss, term_prefix
from ..taps import Taps


@METHODS.add("afd")
class OnlineAdversarialDistillation(OnlineMethod):
    r"""Train networks together, matching the distributions of last feature maps adversarially.

    Chung et al. 2020, "Feature-map-level Online Adversarial Knowledge Distillation",
    https://arxiv.org/abs/2002.01775. Besides labels and the soft outputs of the others, network k
    with last map :math:`G_k` has a discriminator :math:`D_k`, which learns to distinguish the map
    of network k - 1 (cyclic: the student comes after the last peer), *real*, from that of network
    k, *fake*; the network learns that its map is classified as real:

    .. math::
        L_{D_k} &= E[(1 - D_k(sg\, G_{k-1}))^2] + E[D_k(sg\, T_k G_k)^2] \\
        L_k &= L_{task}(z_k) + a \, E_{l \ne k} KL_\tau(sg\, z_l \,\|\, z_k)
            + b \, E[(1 - D_k(T_k G_k))^2]

    Distributions of maps are compared, never two maps of one image. The larger of two maps is
    pooled to the size of the smaller. Where channels differ, :math:`T_k`, a 1×1 convolution with BN
    and ReLU, maps :math:`G_k` to the channels of :math:`G_{k-1}`; it is trained with network k. The
    paper's equations let the real map pass such a layer, too. It would be trained by the
    discriminator's loss alone, whose first convolution does as much, so here the real map goes in
    unchanged.

    The paper alternates: SGD updates the networks by labels and soft outputs, then Adam (rate 2e-5,
    weight decay .1, as far as we know) the discriminators, and the networks by the adversarial
    term. Here one backward pass and one optimizer do all three, with separate gradients: that of
    :math:`L_{D_k}` ends at the maps, and that of the last term goes through :math:`D_k` without
    changing its parameters. Classifiers learn from labels and soft outputs only.

    No code is public. The layers of the discriminator (two 3×3 convolutions with BN and leaky ReLU,
    a global mean, a linear layer and a sigmoid) follow notes about the paper, their width is chosen
    here, and so is the mean over the others in the soft term of three networks or more. Real and
    fake maps pass a discriminator as batches of their own.

    Args:
        student: a network whose last tap is compared.
        peers: networks whose last taps are compared, one or more.
        task: what the labels mean.
        soft_weight: weight a ≥ 0 of the soft terms; 1 by the notes. 0 leaves them out.
        temperature: τ > 0 of the soft terms; 3 by the notes.
        adversarial_weight: weight b ≥ 0 of the adversarial term; 0 leaves mutual learning, without
            discriminators. 1 is chosen here: the paper has a separate optimizer in its place.
        discriminator_lr_scale: factor > 0 of the learning rate for the discriminators; chosen here.
        discriminator_width: channels of a discriminator's convolutions; chosen here.
    """

    provenance = Provenance.NOTES
    needs = Needs(batch=2)

    def __init__(
        self,
        student: Taps,
        peers: Sequence[Taps],
        task: Task,
        *,
        soft_weight: float = 1.0,
        temperature: float = 3.0,
        adversarial_weight: float = 1.0,
        discriminator_lr_scale: float = 0.1,
        discriminator_width: int = 128,
    ) -> None:
        super().__init__()
        if not peers:
            raise ConfigError("afd trains two networks or more: give --peer MODEL")
        self.student, self.peers, self.task = student, nn.ModuleList(peers), task
        self.soft_weight, self.temperature = soft_weight, temperature
        self.adversarial_weight = adversarial_weight
        self.discriminator_lr_scale = discriminator_lr_scale
        channels = [list(taps.shapes.values())[-1][0] for taps in (student, *peers)]
        count = len(channels) if adversarial_weight else 0
        pairs = [(channels[k], channels[k - 1]) for k in range(count)]  # of fake and real maps
        self.transfers = nn.ModuleList(transfer_layer(*pair) for pair in pairs)
        self.discriminators = nn.ModuleList(
            MapDiscriminator(real, discriminator_width) for _, real in pairs
        )

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `soft`, `adversarial` and `discriminator`; `peer1/task`, … of the peers.

        Monitored are the discriminators' mean scores of maps, `real` and `fake`, in 0 … 1.
        """
        passes = [network.forward_features(batch.inputs) for network in self._networks()]
        outputs = [output for output, _ in passes]
        maps = [list(features.values())[-1] for _, features in passes]
        mask = self.task.valid_mask(batch.targets)
        losses: dict[str, Tensor] = {}
        monitors: dict[str, Tensor] = {}
        for k, output in enumerate(outputs):
            prefix = term_prefix(k)
            losses[f"{prefix}task"] = self.task.loss(output, batch.targets)
            if self.soft_weight:
                others = outputs[:k] + outputs[k + 1 :]
                soft_loss = mean_soft_loss(self.task, output, others, self.temperature, mask)
                losses[f"{prefix}soft"] = self.soft_weight * soft_loss
            if self.adversarial_weight:
                real, fake, fooling = self._scores(k, maps[k], maps[k - 1])
                losses[f"{prefix}adversarial"] = self.adversarial_weight * fooling_loss(fooling)
                losses[f"{prefix}discriminator"] = discriminator_loss(real, fake)
                monitors[f"{prefix}real"] = real.detach().mean()
                monitors[f"{prefix}fake"] = fake.detach().mean()
        return StepOutput(outputs[0], losses, monitors)

    def _scores(self, k: int, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D_k of the real map, and of the fake one T_k x twice: to train D_k, and network k."""
        x, real = pooled_to(x, real), pooled_to(real, x).detach()
        fake = self.transfers[k](x)
        discriminator = self.discriminators[k]
        return (
            discriminator(real),
            discriminator(fake.detach()),
            call_with_frozen_parameters(discriminator, fake),
        )

    def param_groups(self) -> list[dict[str, Any]]:
        """Two groups: networks with transfer layers; discriminators at their learning rate."""
        discriminators = list(self.discriminators.parameters())
        ids = {id(p) for p in discriminators}
        networks = [p for p in self.parameters() if p.requires_grad and id(p) not in ids]
        group = {"params": discriminators, "lr_scale": self.discriminator_lr_scale}
        return [{"params": networks}, *([group] if discriminators else [])]

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
        logits: Tensor = self.score(self.layers(x).mean((2, 3)))
        return logits.squeeze(1).float().sigmoid()


def transfer_layer(in_channels: int, out_channels: int) -> nn.Module:
    """T_k: from the channels of one map to those of another; the identity where they are equal."""
    if in_channels == out_channels:
        return nn.Identity()
    convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Least squares (Mao et al. 2017, https://arxiv.org/abs/1611.04076): real to 1, fake to 0."""
    return (1 - real).square().mean() + fake.square().mean()


def fooling_loss(fake: Tensor) -> Tensor:
    """Least squares of the network: fake to 1."""
    return (1 - fake).square().mean()
