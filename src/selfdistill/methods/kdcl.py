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
    Method,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..taps import evaluation_mode

_HALVINGS = 24  # as many as fp32 has bits
_ITERATIONS = 100  # leaves 1e-4 of cross-entropy on average, with logits of a trained network
_RIDGE = 1e-4  # of the mean squared error


@METHODS.add("kdcl")
class CollaborativeLearning(Method):
    r"""Networks that see different views of an image and learn one soft target made from all.

    Guo et al. 2020, "Online Knowledge Distillation via Collaborative Learning", CVPR,
    https://openaccess.thecvf.com/content_CVPR_2020/html/Guo_Online_Knowledge_Distillation_via_Collaborative_Learning_CVPR_2020_paper.html.
    Network k is shown a view of its own and says :math:`z_k`;

    .. math:: L = \sum_k \left[ CE(z_k, y) + \lambda \, KL_\tau(sg\, z^* \,\|\, z_k) \right]

    where the target :math:`z^*` of an image is, by the paper's name for it,

    - *naive*: the logits with the least cross-entropy;
    - *linear*: the mixture :math:`\sum_k a_k z_k` on the simplex with the least cross-entropy;
    - *minlogit*: the smallest of each logit, after :math:`z_k[y]` was taken from all of
      :math:`z_k`, so that the label is at least as likely as any network holds it;
    - *general*: :math:`\sum_k w_k z_k` with :math:`w = C^{-1} 1 / (1^\top C^{-1} 1)`, where
      :math:`C_{kl}` is the mean product of the errors of networks k and l, their probabilities less
      the label's, on held-out images, measured after each epoch.

    No official code is public; the code that goes by the method's name takes the mean of the
    logits, which is none of the four. The notes that we follow do not say in what space the general
    target is mixed: logits are chosen here. They do not keep w from being negative, and it is where
    a network errs as another one does, only more; a ridge of 1e-4 on C, chosen here, keeps w finite
    where networks agree. Without held-out images, and before they were looked at, w is equal.

    Args:
        student: the network that is kept; sees the first view.
        peers: networks of any kind, one or more; each asks for one more view.
        task: what the labels mean; one class an image.
        target: "naive", "linear", "minlogit" (the paper's recipe on ImageNet) or "general" (the
            paper's best on CIFAR-100, wants held-out images).
        soft: weight λ of the soft terms; 1 by the notes.
        temperature: of the soft terms; 2 by the notes.
    """

    kind = "online"
    provenance = Provenance.NOTES
    needs = Needs(views=2, image_labels=True)
    weights: Tensor

    def __init__(
        self,
        student: nn.Module,
        peers: Sequence[nn.Module],
        task: Task,
        *,
        target: Literal["naive", "linear", "minlogit", "general"] = "minlogit",
        soft: float = 1.0,
        temperature: float = 2.0,
    ) -> None:
        super().__init__()
        if not peers:
            raise ConfigError("networks that teach one another are two or more: give --peer MODEL")
        self.student, self.peers, self.task = student, nn.ModuleList(peers), task
        self.target, self.soft, self.temperature = target, soft, temperature
        count = 1 + len(peers)
        self.needs = Needs(views=count, image_labels=True)
        if target == "general":
            self.register_buffer("weights", torch.full((count,), 1 / count))

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task` and `soft` of the student, `peer1/task`, `peer1/soft`, … of the others."""
        networks = (self.student, *self.peers)
        views = (batch.inputs, *batch.views)
        if len(views) < len(networks):
            raise ConfigError(
                f"{len(networks)} networks want a view of each image for each of them, and the "
                f"batch has {len(views)}; load the data with views={len(networks)}"
            )
        said = [network(view) for network, view in zip(networks, views, strict=False)]
        losses: dict[str, Tensor] = {}
        common = self._target(said, batch.targets) if self.soft else None
        for k, out in enumerate(said):
            place = f"peer{k}/" if k else ""
            losses[f"{place}task"] = self.task.loss(out, batch.targets)
            if common is not None:
                distance = self.task.soft_loss(out, common, self.temperature)
                losses[f"{place}soft"] = self.soft * distance
        return StepOutput(said[0], losses)

    @torch.no_grad()
    def _target(self, said: list[Tensor], labels: Tensor) -> Tensor:
        logits = torch.stack([out.detach().float() for out in said])  # (networks, B, K)
        if self.target == "minlogit":
            return (logits - at_label(logits, labels).unsqueeze(-1)).amin(0)
        if self.target == "naive":
            shares = least_wrong(logits, labels)
        elif self.target == "linear":
            shares = best_mixture(logits, labels)
        else:
            shares = self.weights.unsqueeze(-1)
        return mixed(logits, shares)

    def after_epoch(self, held_out: Iterable[Batch]) -> None:
        """Measure the weights of the general target anew."""
        if self.target != "general":
            return
        count = len(self.weights)
        products, seen = self.weights.new_zeros(count, count), self.weights.new_zeros(())
        with evaluation_mode(self):
            for batch in held_out:
                said = [network(batch.inputs) for network in (self.student, *self.peers)]
                probabilities = torch.stack(said).float().softmax(-1)
                errors = probabilities - F.one_hot(batch.targets, probabilities.shape[-1])
                products += errors.flatten(1) @ errors.flatten(1).T
                seen += len(batch.targets)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(products)
            dist.all_reduce(seen)
        if seen > 0:
            self.weights.copy_(least_error(products / seen))

    def predictors(self) -> dict[str, nn.Module]:
        """`peer1`, `peer2`, … and `student`."""
        peers = {f"peer{k}": peer for k, peer in enumerate(self.peers, 1)}
        return {**peers, "student": self.student}


def mixed(logits: Tensor, shares: Tensor) -> Tensor:
    """(networks, B, K) by (networks, B or 1) -> (B, K); autocast would run a product in bf16."""
    return (shares.unsqueeze(-1) * logits).sum(0)


def at_label(logits: Tensor, labels: Tensor) -> Tensor:
    """(networks, B, K) -> (networks, B): the logit of each image's label."""
    places = labels.view(1, -1, 1).expand(len(logits), -1, -1)
    return logits.gather(2, places).squeeze(2)


def least_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """(networks, B) of 0 and 1: for each image the network with the least cross-entropy."""
    wrong = -at_label(logits.log_softmax(-1), labels)
    return torch.zeros_like(wrong).scatter(0, wrong.argmin(0, keepdim=True), 1.0)


def best_mixture(logits: Tensor, labels: Tensor) -> Tensor:
    """(networks, B), on the simplex: for each image the mixture with the least cross-entropy.

    The problem is convex. Of two networks the root of the derivative is found by halving the
    interval; of more, by accelerated projected gradient steps (Beck and Teboulle 2009,
    https://doi.org/10.1137/080716542). Both take a fixed number of steps, as nothing here may wait
    for the device.
    """
    right = at_label(logits, labels)

    def gradient(shares: Tensor) -> Tensor:
        return (mixed(logits, shares).softmax(-1) * logits).sum(-1) - right

    if len(logits) == 2:
        low = torch.zeros_like(right[0])
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
    shares = ahead = torch.full_like(right, 1 / len(logits))
    pace = 1.0
    for _ in range(_ITERATIONS):
        last, shares = shares, onto_simplex(ahead - gradient(ahead) / curvature)
        former, pace = pace, (1 + (1 + 4 * pace**2) ** 0.5) / 2
        ahead = shares + (former - 1) / pace * (shares - last)
    return shares


def onto_simplex(x: Tensor) -> Tensor:
    """Each column of (N, B) as the nearest point with entries of 0 or more that sum to 1."""
    x = x - x.amax(0)  # the point is the same, and large entries no longer cancel
    ordered = x.sort(0, descending=True).values
    count = torch.arange(1, len(x) + 1, device=x.device).unsqueeze(-1)
    surplus = (ordered.cumsum(0) - 1) / count
    last = (ordered > surplus).sum(0, keepdim=True) - 1
    return (x - surplus.gather(0, last)).clamp(min=0)


def least_error(errors: Tensor) -> Tensor:
    """C (N, N), mean products of errors -> w (N,), sum 1: the mixture with the least of them."""
    ridge = _RIDGE * errors.diagonal().mean() + 1e-12  # no error at all: equal weights
    raised = errors + ridge * torch.eye(len(errors)).to(errors)
    solution: Tensor = torch.linalg.solve(raised, torch.ones_like(errors[0]))
    return solution / solution.sum()
