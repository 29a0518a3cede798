"""Forms of MUSE's terms that docs/study.md compares: `--import muse_forms.py --method muse-form`.

What they share with `muse` is inherited; each form changes one thing. They are here and not in the
library until one of them is shown to help.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.core import METHODS, Batch, Needs, Progress, StepOutput, Task
from selfdistill.functional.gradient_routing import call_with_frozen_parameters, scale_grad
from selfdistill.functional.information_bounds import Scores
from selfdistill.methods.exits import SupervisedExits
from selfdistill.methods.muse import Muse
from selfdistill.modules.critics import SeparableCritic
from selfdistill.modules.mutual_information import MutualInformationLoss, StageEstimates
from selfdistill.taps import Taps

Form = Literal[
    "paper", "cosine", "deep local", "other class", "fixed bottleneck", "late", "early", "views"
]


class CosineCritic(SeparableCritic):
    """Normalized codes over a temperature of 0.1, as contrastive learning has them."""

    def forward(self, feature_map: Tensor, vector: Tensor, *pairs: Any) -> Scores:
        """Scores of all pairs, as `SeparableCritic` has them."""
        cells = F.normalize(self.local(feature_map.flatten(2).transpose(1, 2)).float(), dim=-1)
        codes = F.normalize((self.shortcut(vector) + self.layers(vector)).float(), dim=-1)
        return all_pairs((cells @ codes.T / 0.1).transpose(0, 2))


class DeepLocalCritic(SeparableCritic):
    """Two layers and a linear shortcut on the side of the cells, too."""

    def __init__(self, map_channels: int, vector_channels: int, width: int = 128) -> None:
        super().__init__(map_channels, vector_channels, width)
        self.local_layers = nn.Sequential(
            nn.Linear(map_channels, width), nn.ReLU(), nn.Linear(width, width, bias=False)
        )

    def forward(self, feature_map: Tensor, vector: Tensor, *pairs: Any) -> Scores:
        """Scores of all pairs, as `SeparableCritic` has them."""
        cells = feature_map.flatten(2).transpose(1, 2)
        cells = self.local(cells) + self.local_layers(cells)
        codes = (self.shortcut(vector) + self.layers(vector)) / self.local.out_features**0.5
        return all_pairs((cells @ codes.T).transpose(0, 2))


class MaskedCritic(SeparableCritic):
    """Pairs in the mask, (B, B), are neither positive nor negative, but an image with itself is."""

    def forward(
        self,
        feature_map: Tensor,
        vector: Tensor,
        shift: Tensor | None = None,
        same_class_mask: Tensor | None = None,
    ) -> Scores:
        """Scores of all pairs, as `SeparableCritic` has them."""
        scores = super().forward(feature_map, vector)
        if same_class_mask is None:
            return scores
        negative = scores.negative.masked_fill(same_class_mask[:, None], -torch.inf)
        return Scores(scores.positive, negative)


def all_pairs(scores: Tensor) -> Scores:
    """Positives and negatives of scores [image of the vector, cell, image of the cell]."""
    same_image = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    positive = scores.diagonal(dim1=0, dim2=2).T
    return Scores(positive, scores.masked_fill(same_image[:, None], -torch.inf))


CRITICS = {
    "cosine": CosineCritic,
    "deep local": DeepLocalCritic,
    "other class": MaskedCritic,
    "views": MaskedCritic,
}


def with_both_views(batch: Batch) -> Batch:
    """Two augmentations of each image as one batch of twice the size."""
    inputs, targets = torch.cat([batch.inputs, *batch.views]), batch.targets.repeat(2)
    return batch._replace(inputs=inputs, targets=targets, indices=batch.indices.repeat(2))


def of_first_view(step: StepOutput) -> StepOutput:
    """The step with the outputs that the batch has targets for."""
    return step._replace(outputs=step.outputs[: len(step.outputs) // 2])


@METHODS.add("muse-form")
class MuseForm(Muse):
    """MUSE with one thing changed, see docs/study.md, part 3.

    Args:
        student, task, information_weight, combine, estimator: as `muse` has them.
        form: what is changed; "paper" is nothing. "late" and "early" give the pressure in the
            second or the first half of the run alone.
    """

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        form: Form = "paper",
        information_weight: float = 0.1,
        combine: Literal["add", "mul"] = "add",
        estimator: Literal["jsd", "infonce"] = "jsd",
    ) -> None:
        keys: dict[str, Any] = {"combine": combine, "estimator": estimator}
        super().__init__(student, task, information_weight=information_weight, **keys)
        self.form, self.by_class = form, form == "other class"
        self.needs = Needs(batch=2, image_labels=self.by_class, views=2 if form == "views" else 1)
        self.pressure: Tensor | float = information_weight
        channels = student.shapes[student.names[-1]][0]  # of bottlenecks and last feature
        for loss in self.critics.modules():
            if form in CRITICS and isinstance(loss, MutualInformationLoss):
                loss.local_critic = CRITICS[form](channels, channels)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """The terms of `muse`."""
        half = (progress.fraction >= 0.5).float()
        share = {"late": half, "early": 1 - half}.get(self.form, 1.0)
        self.pressure = self.information_weight * share
        if self.form != "views":
            return super().forward(batch, progress)
        return of_first_view(super().forward(with_both_views(batch), progress))

    def _pressed(self, feature: Tensor) -> Tensor:
        return scale_grad(feature, self.pressure)

    def _information(
        self,
        shallow: list[Tensor],
        last_vector: Tensor,
        maps: list[Tensor],
        targets: Any,
        progress: Progress,
    ) -> list[StageEstimates]:
        if self.form == "fixed bottleneck":
            pairs = zip(self.exits.bottlenecks, shallow, strict=True)
            maps = [call_with_frozen_parameters(layers, x) for layers, x in pairs]
        if self.form != "views":
            return super()._information(shallow, last_vector, maps, targets, progress)
        half = len(last_vector) // 2  # each map meets the vectors of its image's other view
        image = torch.arange(len(last_vector), device=last_vector.device) % half
        stages: list[StageEstimates] = self.critics(
            maps,
            [last_vector.roll(half, 0)],
            progress,
            si_vectors=[x.mean((2, 3)).roll(half, 0) for x in maps],
            same_class_mask=image[:, None] == image,
        )
        return stages


@METHODS.add("exits-two-views")
class TwoViewExits(SupervisedExits):
    """Exits with CE and KD on two augmentations of each image: the baseline of the form "views"."""

    needs = Needs(views=2)

    def __init__(self, student: Taps, task: Task) -> None:
        super().__init__(student, task)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """The terms of `exits`."""
        return of_first_view(super().forward(with_both_views(batch), progress))
