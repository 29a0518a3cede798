"""Critics on the features of one network."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from ..functional.places import mean_over_places, pooled_to_size
from ..modules.bottlenecks import exit_grid
from ..modules.mutual_information import MutualInformationLoss

Shape = tuple[int, ...]


class ProbeCritics(nn.Module):
    r"""A critic for the information of each module about the last one (MI) and about itself (SI).

    The losses are those of MUSE (https://arxiv.org/abs/2110.12606, Eq. 5) on the features as they
    are: MI_i between the cells of module i's map and the last feature as the classifier pools it,
    SI_i between the cells of a map and its own mean. No bottleneck is trained here; it would be a
    part of the critic.

    Every view is normalized to mean 0 and deviation 1 of each channel, which does not change its
    information: networks whose features differ in scale alone get the same losses.

    Args:
        shapes: (C, H, W) of the features, of clips (C, T, H, W), shallowest first.
        critic, width, estimator: of each `MutualInformationLoss`.
        frozen: whether the network stays the same at every step; the moments of its features are
            then averaged over all batches, else over the last ones.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        critic: str = "separable",
        width: int | None = None,
        estimator: str = "jsd",
        frozen: bool = True,
    ) -> None:
        super().__init__()
        last = len(shapes) - 1
        self.grids = [exit_grid(shape, shapes[last]) for shape in shapes]
        momentum = None if frozen else 0.1
        self.cell_norms = nn.ModuleList(
            (nn.BatchNorm2d if len(sides) == 2 else nn.BatchNorm3d)(
                c, affine=False, momentum=momentum
            )
            for c, *sides in shapes
        )
        self.mean_norms = nn.ModuleList(
            nn.BatchNorm1d(c, affine=False, momentum=momentum) for c, *_ in shapes
        )
        self.pooled_norm = nn.BatchNorm1d(shapes[last][0], affine=False, momentum=momentum)
        self.pairs = {f"mutual/{i + 1}": (i, last) for i in range(last)}
        # a map of one cell equals its mean, and the critic would compare x with x
        with_cells = [i for i, grid in enumerate(self.grids) if prod(grid) > 1]
        self.pairs |= {f"self/{i + 1}": (i, i) for i in with_cells}
        self.critics = nn.ModuleDict(
            {
                term: MutualInformationLoss(
                    shapes[i][0],
                    shapes[j][0],
                    critic=critic,
                    critic_width=width,
                    estimator=estimator,
                )
                for term, (i, j) in self.pairs.items()
            }
        )

    def forward(
        self, features: Sequence[Tensor], pooled: Tensor, shift: Tensor
    ) -> dict[str, Tensor]:
        """{"mutual/1": loss, …, "self/1": loss, …} of features (B, C, H, W) and the pooled (B, C).

        `shift` (0-d, 1 … B-1) makes the negatives of critics that do not score all pairs. A loss of
        SI trains its critic alone.
        """
        cells = [
            norm(pooled_to_size(x, grid))
            for norm, x, grid in zip(self.cell_norms, features, self.grids, strict=True)
        ]
        means = [
            norm(mean_over_places(x)) for norm, x in zip(self.mean_norms, features, strict=True)
        ]
        pooled = self.pooled_norm(pooled)
        losses: dict[str, Tensor] = {}
        for term, (i, j) in self.pairs.items():
            local_view, global_view = cells[i], pooled
            if i == j:
                local_view, global_view = local_view.detach(), means[i].detach()
            losses[term] = self.critics[term](local_view, global_view, shift).loss
        return losses
