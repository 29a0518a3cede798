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
from ..modules.bifpn import BiFPN, MergedLevels
from ..taps import Taps, evaluation_mode

_RATIO, _PARTNERS, _BOX = purpose("frskd.ratio"), purpose("frskd.partners"), purpose("frskd.box")


@METHODS.add("frskd")
class FeatureRefinement(Method):
    r"""A self-teacher refines the stages' features; the student learns to look where it looks.

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
    are ``soft=1, attention=50, temperature=1, start=0.667, ramp=0.333``, for 60 epochs on VOC.
    Where the self-teacher's outputs and the student's do not compare (a detector with several
    grids, whose self-teacher has the last one's), the soft loss is left out.

    With `augment="mixup"` (a = 0.2) or `"cutmix"` (a = 1) the batch is mixed with itself, and both
    heads learn the mixture of both labels. With `"sla"`, self-supervised label augmentation (Lee et
    al. 2020, https://arxiv.org/abs/1910.05872), the four quarter turns of the images make a second
    pass. Beside either head there is another then, dropped after training, with 4K scores for the
    joint labels 4y + r, r = 0 … 3 quarter turns, supervised there. The mean over r of its K scores
    for turn r on the image that was turned r times is soft-distilled, with weight 1, into the plain
    head on the upright image; the soft term counts these means beside the plain outputs and the
    attention term the turned images beside the upright ones, all as in the code. A step then costs
    five times as much.

    Args:
        student: a network with two taps or more; the paper's are the ends of its stages, no stem.
        task: what the labels mean.
        soft: weight α of the soft loss; 0 leaves it out. 2 in the code's commands for CIFAR-100.
        attention: weight β of the attention term; 0 leaves it out, which the paper calls FRSKD\F.
            100 in the code's commands for CIFAR-100.
        temperature: τ > 0 of the soft losses; the code's 4.
        width: channels of each refined map over those of the student's feature; the code's 2.
        depth: separable convolutions in each of the pyramid's fusions; the code's 2.
        resize: how maps are made larger, "nearest" (the code's) or "bilinear" (the paper's).
        augment: "none", "mixup", "cutmix" or "sla" (on square images); all but "none" want one
            class label an image.
        start: part of the run, in [0, 1), that is over before the soft and attention terms join in;
            0 in the code for classification, 2/3 in that for segmentation. With `start` or `ramp`
            above 0 the length of the run must be known.
        ramp: part of the run, in [0, 1], over which their weight then grows by
            :math:`e^{-5 (1 - t)^2}`, t from 0 to 1. 0 is none; the rest of the run, 1/3, is our
            reading of the code for segmentation.

    Raises:
        ConfigError: fewer than two taps, a part of the run that is none, or an augmentation that
            the task does not allow.
    """

    kind = "self"
    provenance = Provenance.CODE

    def __init__(
        self,
        student: Taps,
        task: Task,
        *,
        soft: float = 2.0,
        attention: float = 100.0,
        temperature: float = 4.0,
        width: float = 2.0,
        depth: int = 2,
        resize: Literal["nearest", "bilinear"] = "nearest",
        augment: Literal["none", "mixup", "cutmix", "sla"] = "none",
        start: float = 0.0,
        ramp: float = 0.0,
    ) -> None:
        super().__init__()
        if not (0 <= start < 1 and 0 <= ramp <= 1):
            raise ConfigError(
                f"start={start:g} and ramp={ramp:g} are parts of a run: 0 … 0.99, and 0 … 1"
            )
        _check_augment(augment, task)
        self.needs = Needs(image_labels=augment != "none")
        self.start, self.ramp = start, ramp
        self.student, self.task, self.augment = student, task, augment
        self.soft, self.attention, self.temperature = soft, attention, temperature
        channels = [shape[0] for shape in student.shapes.values()]
        widths = [round(width * c) for c in channels]
        self.pyramid = BiFPN(channels, widths, depth=depth, resize=resize)
        # what is said of every place is read at every level, what is said of the image at the last
        self.reading: nn.Module = MergedLevels(widths) if task.dense_scores else Last()
        self.head = task.head(widths[0] if task.dense_scores else widths[-1])
        self.joint = nn.ModuleDict()
        if augment == "sla":
            with evaluation_mode(self.head):
                scores = self.head(task.example.new_zeros(1, widths[-1], 1, 1))  # (1, K)
            for who, c in (("student", channels[-1]), ("teacher", widths[-1])):
                self.joint[who] = _joint_head(c, scores.shape[1])

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, `teacher`, `soft` and `attention/i`; with "sla" `joint/…` and `turned/…`, too."""
        if self.augment == "sla":
            return self._with_turns(batch, progress)
        inputs, supervised = self._mixed(batch, progress)
        said = self._said(inputs)
        losses = {"task": supervised(said.student), "teacher": supervised(said.teacher)}
        return StepOutput(said.student, losses | self._taught(said, progress))

    def _said(self, inputs: Tensor) -> "_Said":
        out, features = self.student.forward_features(inputs)
        maps = [x.relu() for x in features.values()]
        refined = self.pyramid(maps)
        return _Said(out, self.head(self.reading(refined)), maps, refined)

    def _taught(self, said: "_Said", progress: Progress) -> dict[str, Tensor]:
        """What the student learns from the self-teacher, which stays as it is."""
        losses: dict[str, Tensor] = {}
        height = self._height(progress)
        if self.soft and self.task.outputs_compatible(said.student, said.teacher):
            losses["soft"] = height * self.soft * self._soft(said.student, said.teacher)
        if self.attention:
            for i, (x, refined) in enumerate(zip(said.maps, said.refined, strict=True), 1):
                gap = attention_map(x) - attention_map(refined.detach())  # (B, H·W)
                losses[f"attention/{i}"] = height * self.attention * gap.square().mean()
        return losses

    def _height(self, progress: Progress) -> Tensor:
        """The share of the soft and attention terms' weight that counts by now, 0-d."""
        joined = progress.fraction >= self.start  # 0, and then 1
        if not self.ramp:
            return joined.float()
        t = ((progress.fraction - self.start) / self.ramp).clamp(0, 1)
        return joined * (-5 * (1 - t).square()).exp()

    def _soft(self, outputs: Any, reference: Any) -> Tensor:
        return self.task.soft_loss(outputs, reference.detach(), self.temperature)

    def _mixed(self, batch: Batch, progress: Progress) -> tuple[Tensor, Callable[[Any], Tensor]]:
        """The inputs, mixed if asked for, and the supervised loss that goes with them."""
        x, y, loss = batch.inputs, batch.targets, self.task.loss
        if self.augment == "none":
            return x, lambda outputs: loss(outputs, y)
        keys = (progress.seed, progress.step, batch.indices[0])
        partners = batch_permutation(_PARTNERS, progress.seed, progress.step, batch.indices)
        if self.augment == "mixup":
            ratio = beta(0.2, _RATIO, *keys)
            x = mixup(x, partners, ratio)
        else:
            size = (x.shape[2], x.shape[3])
            box, ratio = cutmix_box(size, beta(1.0, _RATIO, *keys), _BOX, *keys)
            x = cutmix(x, partners, box)
        its = y[partners]
        return x, lambda outputs: ratio * loss(outputs, y) + (1 - ratio) * loss(outputs, its)

    def _with_turns(self, batch: Batch, progress: Progress) -> StepOutput:
        """The step with self-supervised label augmentation."""
        upright, turned = self._said(batch.inputs), self._said(quarter_turns(batch.inputs))
        losses = {
            "task": self.task.loss(upright.student, batch.targets),
            "teacher": self.task.loss(upright.teacher, batch.targets),
        }
        plain = {"student": upright.student, "teacher": upright.teacher}
        last = {"student": turned.maps[-1], "teacher": turned.refined[-1]}
        everything = {}
        for who, head in self.joint.items():
            scores = head(last[who])  # (4B, 4K)
            losses[f"joint/{who}"] = F.cross_entropy(scores.float(), joint_labels(batch.targets))
            agreed = agreement(scores)
            losses[f"turned/{who}"] = self._soft(plain[who], agreed)
            everything[who] = torch.cat([plain[who], agreed])
        maps, refined = (
            [torch.cat(pair) for pair in zip(mine, its, strict=True)]
            for mine, its in ((upright.maps, turned.maps), (upright.refined, turned.refined))
        )
        both = _Said(everything["student"], everything["teacher"], maps, refined)
        return StepOutput(upright.student, losses | self._taught(both, progress))

    def predictors(self) -> dict[str, nn.Module]:
        """`teacher`, the self-teacher on top of the student's stages, and `student`."""
        head = nn.Sequential(self.reading, self.head)
        teacher = SelfTeacher(self.student, self.pyramid, head)
        return {"teacher": teacher, "student": self.student.network}

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """Both in one pass."""
        said = self._said(inputs)
        return {"teacher": said.teacher, "student": said.student}


class _Said(NamedTuple):
    """Outputs of both heads, the stages' features behind their ReLU, and the refined maps."""

    student: Any
    teacher: Any
    maps: list[Tensor]
    refined: list[Tensor]


class SelfTeacher(nn.Module):
    """The refined network as one of its own.

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


class Last(nn.Module):
    """The last of several maps."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The deepest level."""
        return maps[-1]


def quarter_turns(x: Tensor) -> Tensor:
    """(B, C, H, H) -> (4B, C, H, H): of each image its turns by 0, 90, 180 and 270 degrees."""
    return torch.stack([x.rot90(r, (2, 3)) for r in range(4)], dim=1).flatten(0, 1)


def joint_labels(labels: Tensor) -> Tensor:
    """(B,) -> (4B,): 4y + r for turn r of an image of class y, in the order of `quarter_turns`."""
    return (4 * labels[:, None] + torch.arange(4, device=labels.device)).flatten()


def agreement(scores: Tensor) -> Tensor:
    """Scores (4B, 4K) of joint labels -> (B, K): the mean over r of what turn r has for turn r."""
    each = scores.unflatten(0, (-1, 4)).unflatten(2, (-1, 4))  # (B, 4, K, 4)
    own: Tensor = each.diagonal(dim1=1, dim2=3)  # (B, K, 4)
    return own.mean(-1)


def _joint_head(channels: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4 * classes))


def _check_augment(augment: str, task: Task) -> None:
    if augment != "none" and not task.image_labels:
        raise ConfigError(
            f"augment='{augment}' wants one class label an image; {task.name} has none, "
            "use augment='none'"
        )
    height, width = task.example.shape[-2:]
    if augment == "sla" and height != width:
        raise ConfigError(
            f"augment='sla' turns images, which must be square, not {height}×{width}; "
            "use another augment or an --image-size"
        )
