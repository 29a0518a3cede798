from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
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
from ..core.keyed_random import purpose
from ..functional.attention import attention_map
from ..functional.mixing import batch_permutation, beta, cutmix, cutmix_box, mixup
from ..functional.schedules import sigmoid_rampup
from ..modules.bifpn import BiFPN, MergedLevels
from ..modules.rotations import TURNS, check_turnable, joint_labels, turned
from ..taps import Taps, evaluation_mode

_RATIO, _PARTNERS, _BOX = purpose("frskd.ratio"), purpose("frskd.partners"), purpose("frskd.box")


@METHODS.add("frskd")
class FeatureRefinement(Method):
    r"""Distill refined feature maps and soft labels from a BiFPN self-teacher.

    FRSKD, Ji et al. 2021, https://arxiv.org/abs/2103.08273, and its authors' code (MingiJi/FRSKD).
    The self-teacher is a pyramid (BiFPNc) on the stages' features :math:`F_i`, behind a ReLU. It
    has refined maps :math:`T_i`, and on the last of them a head with outputs :math:`z_t`; with the
    student's own outputs :math:`z_c`

    .. math::
        L = L_{task}(z_c) + L_{task}(z_t) + \alpha L_{soft}(z_c, sg\, z_t)
            + \beta \sum_i \overline{\left( A(F_i) - A(sg\, T_i) \right)^2}

    where A is the attention map, of unit length, the bar a mean over images and cells, and
    :math:`L_{soft}` τ² times the KL divergence. The self-teacher learns from the labels only, but
    what it reads is not detached: its supervised loss trains the student's stages, too.

    Where accounts of the paper and the code differ we follow the code: the attention term is a mean
    of squares, which β counts on, no norm; the KL divergence has the self-teacher's distribution in
    front; maps are made larger by repetition. Ports whose soft loss moves the self-teacher are
    another method.

    Where outputs are scores of every place (segmentation), the self-teacher's head reads the sum of
    all :math:`T_i`, each brought to width and size of the finest. The authors' code for
    segmentation is built into EfficientDet: the student has a pyramid of its own, three BiFPN
    layers of one width, and the self-teacher is two more on top, whose distillation starts late.
    Here the student is any network, and the pyramid the one for classification. That code's numbers
    are ``soft_weight=1, attention_weight=50, temperature=1, start_fraction=0.667,
    warmup_fraction=0.333``, for 60 epochs on VOC. Where the self-teacher's outputs and the
    student's do not compare (a detector with several grids, whose self-teacher has the last one's),
    the soft loss is left out.

    With `augmentation="mixup"` (a = 0.2) or `"cutmix"` (a = 1) the batch is mixed with itself, and
    both heads learn the mixture of both labels. With `"sla"`, self-supervised label augmentation
    (Lee et al. 2020, https://arxiv.org/abs/1910.05872), the four quarter turns of the images make a
    second pass. Parallel to either head is then another, dropped after training, with 4K scores for
    the joint labels 4y + r, r = 0 … 3 quarter turns, supervised there. The mean over r of its K
    scores for turn r on the image turned r times is soft-distilled, with weight 1, into the plain
    head on the upright image; the soft term counts these means beside the plain outputs and the
    attention term the turned images beside the upright ones, as in the code. A step costs fivefold.

    Args:
        student: a network with two taps or more: the ends of its stages, no stem.
        task: what the labels mean.
        soft_weight: weight α of the soft loss; 0 leaves it out. 2 in the code's commands for
            CIFAR-100.
        attention_weight: weight β of the attention term; 0 leaves it out, which the paper calls
            FRSKD\F. 100 in the code's commands for CIFAR-100.
        temperature: τ > 0 of the soft losses; the code's 4.
        pyramid_width: channels of each refined map over the student's feature's; the code's 2.
        pyramid_depth: separable convolutions in each of the pyramid's fusions; the code's 2.
        upsampling: how maps are made larger, "nearest" (the code's) or "bilinear" (the paper's).
        augmentation: "none", "mixup", "cutmix" or "sla" (on square images); all but "none" want one
            class label an image.
        start_fraction: part of the run, in [0, 1), before the soft and attention terms start; 0 in
            the code for classification, 2/3 in that for segmentation.
        warmup_fraction: part of the run, in [0, 1], over which their weight then grows by
            :math:`e^{-5 (1 - t)^2}`, t from 0 to 1. 0 is none; what remains of the run, 1/3, is our
            reading of the code for segmentation.

    Raises:
        ConfigError: fewer than two taps, a part of the run that is none, or an augmentation that
            the task does not allow.
    """

    kind = "self"
    provenance = Provenance.CODE
    default_taps = "stages"

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        soft_weight: float = 2.0,
        attention_weight: float = 100.0,
        temperature: float = 4.0,
        pyramid_width: float = 2.0,
        pyramid_depth: int = 2,
        upsampling: Literal["nearest", "bilinear"] = "nearest",
        augmentation: Literal["none", "mixup", "cutmix", "sla"] = "none",
        start_fraction: float = 0.0,
        warmup_fraction: float = 0.0,
    ) -> None:
        super().__init__()
        if not (0 <= start_fraction < 1 and 0 <= warmup_fraction <= 1):
            raise ConfigError(
                f"start_fraction={start_fraction:g} and warmup_fraction={warmup_fraction:g} are "
                "parts of a run: 0 … 0.99, and 0 … 1"
            )
        _check_augmentation(augmentation, task)
        mixes, grows = augmentation != "none", bool(start_fraction or warmup_fraction)
        self.needs = Needs(image_labels=mixes, single_label=mixes, run_length=grows)
        self.start_fraction, self.warmup_fraction = start_fraction, warmup_fraction
        self.student, self.task, self.augmentation = student, task, augmentation
        self.soft_weight, self.attention_weight = soft_weight, attention_weight
        self.temperature = temperature
        channels = [shape[0] for shape in student.shapes.values()]
        widths = [round(pyramid_width * c) for c in channels]
        self.pyramid = BiFPN(channels, widths, depth=pyramid_depth, upsampling=upsampling)
        # dense scores are read from all levels, scores of the image from the last
        self.readout: nn.Module = MergedLevels(widths) if task.dense_scores else LastLevel()
        self.head = task.head(widths[0] if task.dense_scores else widths[-1])
        self.joint = nn.ModuleDict()
        if augmentation == "sla":
            with evaluation_mode(self.head):
                scores = self.head(task.example.new_zeros(1, widths[-1], 1, 1))  # (1, K)
            for name, c in (("student", channels[-1]), ("teacher", widths[-1])):
                layers = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 4 * scores.shape[1]))
                self.joint[name] = nn.Sequential(*layers)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `teacher`, `soft` and `attention/i`; with "sla" `joint/…` and `turned/…`, too."""
        if self.augmentation == "sla":
            return self._with_turns(batch, progress)
        inputs, supervised_loss = self._mixed(batch, progress)
        outputs = self._outputs(inputs)
        mask = self.task.valid_mask(batch.targets)
        student, teacher = map(supervised_loss, (outputs.student, outputs.teacher))
        losses = {"task": student, "teacher": teacher}
        return StepOutput(outputs.student, losses | self._distillation(outputs, progress, mask))

    def _outputs(self, inputs: Tensor) -> "Outputs":
        student, features = self.student.forward_features(inputs)
        maps = [x.relu() for x in features.values()]
        refined = self.pyramid(maps)
        return Outputs(student, self.head(self.readout(refined)), maps, refined)

    def _distillation(
        self, outputs: "Outputs", progress: Progress, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`soft` and `attention/i`; no gradient goes into the self-teacher."""
        losses: dict[str, Tensor] = {}
        scale = self._warmup(progress)
        if self.soft_weight and self.task.outputs_compatible(outputs.student, outputs.teacher):
            soft_loss = self._soft_loss(outputs.student, outputs.teacher, mask)
            losses["soft"] = scale * self.soft_weight * soft_loss
        if self.attention_weight:
            for i, (x, refined) in enumerate(zip(outputs.maps, outputs.refined, strict=True), 1):
                gap = attention_map(x) - attention_map(refined.detach())  # (B, H·W)
                losses[f"attention/{i}"] = scale * self.attention_weight * gap.square().mean()
        return losses

    def _warmup(self, progress: Progress) -> Tensor:
        """The factor of the soft and attention weights at this step, in [0, 1], 0-d."""
        if not self.needs.run_length:
            return progress.step.new_ones((), dtype=torch.float32)
        started = progress.fraction >= self.start_fraction  # 0, and then 1
        if not self.warmup_fraction:
            return started.float()
        fraction = (progress.fraction - self.start_fraction) / self.warmup_fraction
        return started * sigmoid_rampup(fraction)

    def _soft_loss(self, outputs: Any, reference: Any, mask: Tensor | None = None) -> Tensor:
        return self.task.soft_loss(outputs, reference.detach(), self.temperature, mask=mask)

    def _mixed(self, batch: Batch, progress: Progress) -> tuple[Tensor, Callable[[Any], Tensor]]:
        """The inputs, mixed by mixup or cutmix, and their supervised loss."""
        x, y, loss = batch.inputs, batch.targets, self.task.loss
        if self.augmentation == "none":
            return x, lambda outputs: loss(outputs, y)
        keys = (progress.seed, progress.step, batch.indices[0])
        partners = batch_permutation(_PARTNERS, progress.seed, progress.step, batch.indices)
        if self.augmentation == "mixup":
            ratio = beta(0.2, _RATIO, *keys)
            x = mixup(x, partners, ratio)
        else:
            size = (x.shape[2], x.shape[3])
            box, ratio = cutmix_box(size, beta(1.0, _RATIO, *keys), _BOX, *keys)
            x = cutmix(x, partners, box)
        partner_y = y[partners]
        return x, lambda outputs: ratio * loss(outputs, y) + (1 - ratio) * loss(outputs, partner_y)

    def _with_turns(self, batch: Batch, progress: Progress) -> StepOutput:
        """The step with self-supervised label augmentation."""
        upright = self._outputs(batch.inputs)
        turns = self._outputs(turned([batch.inputs] * TURNS))
        losses = {
            "task": self.task.loss(upright.student, batch.targets),
            "teacher": self.task.loss(upright.teacher, batch.targets),
        }
        last_maps = {"student": turns.maps[-1], "teacher": turns.refined[-1]}
        both = {}
        for name, head in self.joint.items():
            scores, plain = head(last_maps[name]), getattr(upright, name)  # (4B, 4K), (B, K)
            losses[f"joint/{name}"] = F.cross_entropy(scores.float(), joint_labels(batch.targets))
            mean_scores = mean_over_turns(scores)
            losses[f"turned/{name}"] = self._soft_loss(plain, mean_scores)
            both[name] = torch.cat([plain, mean_scores])
        maps, refined = (
            [torch.cat(pair) for pair in zip(*pairs, strict=True)]
            for pairs in ((upright.maps, turns.maps), (upright.refined, turns.refined))
        )
        outputs = Outputs(**both, maps=maps, refined=refined)
        return StepOutput(upright.student, losses | self._distillation(outputs, progress))

    def predictors(self) -> dict[str, nn.Module]:
        """`teacher`, the self-teacher on top of the student's stages, and `student`."""
        teacher = SelfTeacher(self.student, self.pyramid, nn.Sequential(self.readout, self.head))
        return {"teacher": teacher, "student": self.student.network}

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """The outputs of both in one pass."""
        outputs = self._outputs(inputs)
        return {"teacher": outputs.teacher, "student": outputs.student}


class Outputs(NamedTuple):
    """Outputs of both heads, the stages' features behind their ReLU, and the refined maps."""

    student: Any
    teacher: Any
    maps: list[Tensor]
    refined: list[Tensor]


class SelfTeacher(nn.Module):
    """The student's stages with the pyramid and its head, as a network.

    Args:
        student: the network with its taps.
        pyramid: refines the features at the taps.
        head: from the refined maps to the output.
    """

    def __init__(self, student: Taps, pyramid: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.student, self.pyramid, self.head = student, pyramid, head

    def forward(self, x: Tensor) -> Any:
        """The self-teacher's output."""
        _, features = self.student.forward_features(x)
        return self.head(self.pyramid([f.relu() for f in features.values()]))


class LastLevel(nn.Module):
    """The last of several maps."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[(B, C_i, H_i, W_i)] -> its last."""
        return maps[-1]


def mean_over_turns(scores: Tensor) -> Tensor:
    """Scores (4B, 4K) of joint labels -> (B, K): the mean over r of turn r's scores for turn r."""
    by_turn = scores.unflatten(0, (TURNS, -1)).unflatten(2, (-1, TURNS))  # (4, B, K, 4)
    same_turn: Tensor = by_turn.diagonal(dim1=0, dim2=3)  # (B, K, 4)
    return same_turn.mean(-1)


def _check_augmentation(augmentation: str, task: Task) -> None:
    if augmentation != "none" and not task.image_labels:
        raise ConfigError(
            f"augmentation='{augmentation}' wants one class label an image; {task.name} has none, "
            "use augmentation='none'"
        )
    if augmentation == "sla":
        check_turnable(task)
