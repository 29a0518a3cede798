from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.distributed as dist
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
from ..modules.online import OnlineMethod, term_prefix
from ..taps import evaluation_mode

_HALVINGS = 24  # as many as fp32 has bits
_ITERATIONS = 100  # leaves 1e-4 of cross-entropy on average, with logits of a trained network
_RIDGE = 1e-4  # of the mean squared error


@METHODS.add("kdcl")
class CollaborativeLearning(OnlineMethod):
    r"""Train several networks on their own views, matching one ensemble of all their logits (KL).

    Guo et al. 2020, "Online Knowledge Distillation via Collaborative Learning", CVPR,
    https://openaccess.thecvf.com/content_CVPR_2020/html/Guo_Online_Knowledge_Distillation_via_Collaborative_Learning_CVPR_2020_paper.html.
    Network k sees a view of its own and has the logits :math:`z_k`;

    .. math:: L = \sum_k \left[ CE(z_k, y) + \lambda \, KL_\tau(sg\, z^* \,\|\, z_k) \right]

    where the target :math:`z^*` of an image is, by the paper's name for it,

    - *naive*: the logits with the least cross-entropy;
    - *linear*: the mixture :math:`\sum_k a_k z_k` on the simplex with the least cross-entropy;
    - *minlogit*: the smallest of each logit, after :math:`z_k[y]` was taken from all of
      :math:`z_k`, so that the label is at least as likely as for any of the networks;
    - *general*: :math:`\sum_k w_k z_k` with :math:`w = C^{-1} 1 / (1^\top C^{-1} 1)`, where
      :math:`C_{kl}` is the mean product of the errors of networks k and l, their probabilities less
      the label's, on held-out images, measured after each epoch.

    No official code is public; a public port takes the mean of the logits, which is none of the
    four. The notes that we follow do not say in what space the general target is mixed: logits are
    chosen here. They do not constrain w to be 0 or more: a network whose errors are those of
    another one, only larger, gets a negative weight. A ridge of 1e-4 on C, chosen here, keeps w
    finite where networks agree. Before the first measurement, and without held-out images, w is
    equal. The held-out images are the validation images: w, one number a network, is fitted on the
    images by which epochs are compared, where the paper holds a part of its own out.

    Args:
        student: the network that is kept; sees the first view.
        peers: networks of any architecture, one or more; each takes one more view.
        task: what the labels mean; one class an image.
        ensemble: the target: "naive", "linear", "minlogit" (the paper's recipe on ImageNet) or
            "general" (the paper's best on CIFAR-100, needs held-out images).
        soft_weight: weight λ ≥ 0 of the soft terms; 1 by the notes. 0 leaves them out.
        temperature: τ > 0 of the soft terms; 2 by the notes.
    """

    provenance = Provenance.NOTES
    needs = Needs(views=2, image_labels=True, single_label=True)
    weights: Tensor

    def __init__(
        self,
        student: nn.Module,
        peers: Sequence[nn.Module],
        task: Task,
        *,
        ensemble: Literal["naive", "linear", "minlogit", "general"] = "minlogit",
        soft_weight: float = 1.0,
        temperature: float = 2.0,
    ) -> None:
        super().__init__()
        if not peers:
            raise ConfigError("kdcl trains two networks or more: give --peer MODEL")
        self.student, self.peers, self.task = student, nn.ModuleList(peers), task
        self.ensemble, self.soft_weight, self.temperature = ensemble, soft_weight, temperature
        count = 1 + len(peers)
        self.needs = Needs(views=count, image_labels=True, single_label=True)
        if ensemble == "general":
            self.register_buffer("weights", torch.full((count,), 1 / count))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft` of the student, `peer1/task`, `peer1/soft`, … of the others."""
        networks = (self.student, *self.peers)
        views = (batch.inputs, *batch.views)
        if len(views) < len(networks):
            raise ConfigError(
                f"{len(networks)} networks need as many views of each image, and the batch has "
                f"{len(views)}; load the data with views={len(networks)}"
            )
        outputs = [network(view) for network, view in zip(networks, views, strict=False)]
        losses: dict[str, Tensor] = {}
        target = self._target(outputs, batch.targets) if self.soft_weight else None
        for k, output in enumerate(outputs):
            prefix = term_prefix(k)
            losses[f"{prefix}task"] = self.task.loss(output, batch.targets)
            if target is not None:
                soft = self.task.soft_loss(output, target, self.temperature)
                losses[f"{prefix}soft"] = self.soft_weight * soft
        return StepOutput(outputs[0], losses)

    @torch.no_grad()
    def _target(self, outputs: list[Tensor], labels: Tensor) -> Tensor:
        """The ensemble's logits z* (B, K)."""
        logits = torch.stack([output.detach().float() for output in outputs])  # (networks, B, K)
        if self.ensemble == "minlogit":
            return (logits - label_scores(logits, labels).unsqueeze(-1)).amin(0)
        if self.ensemble == "naive":
            weights = lowest_loss_network(logits, labels)
        elif self.ensemble == "linear":
            weights = optimal_mixture(logits, labels)
        else:
            weights = self.weights.unsqueeze(-1)
        return weighted_sum(logits, weights)

    def after_epoch(self, held_out: Iterable[Batch]) -> None:
        """Measures the weights w of the general target anew."""
        if self.ensemble != "general":
            return
        count = len(self.weights)
        products, samples = self.weights.new_zeros(count, count), self.weights.new_zeros(())
        with evaluation_mode(self):
            for batch in held_out:
                outputs = [network(batch.inputs) for network in (self.student, *self.peers)]
                probabilities = torch.stack(outputs).float().softmax(-1)
                errors = probabilities - F.one_hot(batch.targets, probabilities.shape[-1])
                products += errors.flatten(1) @ errors.flatten(1).T
                samples += len(batch.targets)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(products)
            dist.all_reduce(samples)
        if samples > 0:
            self.weights.copy_(least_squares_weights(products / samples))


def weighted_sum(logits: Tensor, weights: Tensor) -> Tensor:
    """(networks, B, K) and (networks, B or 1) -> (B, K); autocast would run a matmul in bf16."""
    return (weights.unsqueeze(-1) * logits).sum(0)


def label_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """(networks, B, K) -> (networks, B): the logit of each image's label."""
    index = labels.view(1, -1, 1).expand(len(logits), -1, -1)
    return logits.gather(2, index).squeeze(2)


def lowest_loss_network(logits: Tensor, labels: Tensor) -> Tensor:
    """(networks, B) of 0 and 1: for each image the network with the least cross-entropy."""
    loss = -label_scores(logits.log_softmax(-1), labels)
    return torch.zeros_like(loss).scatter(0, loss.argmin(0, keepdim=True), 1.0)


def optimal_mixture(logits: Tensor, labels: Tensor) -> Tensor:
    """(networks, B), on the simplex: for each image the mixture with the least cross-entropy.

    The problem is convex. Of two networks the root of the derivative is found by halving the
    interval; of more, by accelerated projected gradient steps (Beck and Teboulle 2009,
    https://doi.org/10.1137/080716542). Both take a fixed number of steps, as nothing here may wait
    for the device.
    """
    label_logits = label_scores(logits, labels)

    def gradient(weights: Tensor) -> Tensor:
        return (weighted_sum(logits, weights).softmax(-1) * logits).sum(-1) - label_logits

    if len(logits) == 2:
        low = torch.zeros_like(label_logits[0])
        high = torch.ones_like(low)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            first, second = gradient(torch.stack([middle, 1 - middle]))
            low = torch.where(first < second, middle, low)
            high = torch.where(first < second, high, middle)
        return torch.stack([low, 1 - low])
    centered = logits - logits.mean(0)
    # A variance is at most a quarter of the squared range, so this bounds the curvature.
    curvature = (centered.amax(-1) - centered.amin(-1)).square().sum(0) / 4 + 1e-6
    weights = extrapolated = torch.full_like(label_logits, 1 / len(logits))
    t = 1.0
    for _ in range(_ITERATIONS):
        previous = weights
        weights = project_to_simplex(extrapolated - gradient(extrapolated) / curvature)
        t_previous, t = t, (1 + (1 + 4 * t**2) ** 0.5) / 2
        extrapolated = weights + (t_previous - 1) / t * (weights - previous)
    return weights


def project_to_simplex(x: Tensor) -> Tensor:
    """Each column of (N, B) projected to the nearest with entries of 0 or more that sum to 1."""
    x = x - x.amax(0)  # the projection is the same, and large entries no longer cancel
    ordered = x.sort(0, descending=True).values
    count = torch.arange(1, len(x) + 1, device=x.device).unsqueeze(-1)
    surplus = (ordered.cumsum(0) - 1) / count
    last = (ordered > surplus).sum(0, keepdim=True) - 1
    return (x - surplus.gather(0, last)).clamp(min=0)


def least_squares_weights(covariance: Tensor) -> Tensor:
    """C (N, N), mean products of errors -> w (N,), sum 1: the mixture with the least squares."""
    ridge = _RIDGE * covariance.diagonal().mean() + 1e-12  # above 0: no error, equal weights
    regularized = covariance + ridge * torch.eye(len(covariance)).to(covariance)
    solution: Tensor = torch.linalg.solve(regularized, torch.ones_like(covariance[0]))
    return solution / solution.sum()
