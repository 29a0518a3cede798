from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import (
    METHODS,
    Batch,
    ConfigError,
    Frozen,
    Needs,
    Progress,
    Provenance,
    StepOutput,
    Task,
)
from ..functional.rectification import negative_share
from ..modules.feature_distillation import UNREACHABLE, FeatureDistillation, unreachable_warning
from ..taps import Taps, Teacher
from ..taps.fx_split import split_at


@METHODS.add("srrl")
class SoftmaxRegressionRepresentation(FeatureDistillation):
    r"""Match the teacher's scores with the student's last feature in the teacher's own classifier.

    Yang et al. 2021, https://openreview.net/forum?id=ZzwDy_wiWv; called semantic representational
    distillation (SRD) by Yang et al. 2022, https://arxiv.org/abs/2205.06701, who add images without
    labels (`open_set`). With x and t the last features of student and teacher,
    :math:`z_t = h(t)` the teacher's scores, h its classifier with the pooling before it, frozen,
    and r a connector that is trained and dropped afterwards (a 1×1 convolution without bias, batch
    norm and ReLU),

    .. math:: L = L_{task} + \beta \, \overline{(h(r(x)) - z_t)^2} + \beta k \,
        \overline{(pool \, r(x) - pool \, t)^2}

    where the bars are means over images and classes or channels. The gradient of the second term
    passes through h, whose weights stay as they are. The student keeps a classifier of its own.

    The form is that of the authors' code. Its k is 1, and 10 for ShuffleNet-V1 as a student, and it
    reports the best epoch. The code of SimKD, https://arxiv.org/abs/2203.14001, pools x before r,
    and adds a soft loss of weight 1. As here x need not have the size of t, r(x) is brought to it
    by averaging or repeating cells; where one size is a multiple of the other, its mean remains.

    With `open_set` the last two terms are means over the batch and over as many images without
    labels, of any classes (`--extra`); labels and soft loss are for the former alone. Joint passes
    both through the student and r at once, as the first form of the code does, so that batch norm
    has statistics of their mixture; separate passes one after the other, as the second form does,
    with statistics of each. That both halves count alike in the separate form, too, is chosen here.

    h is cut from the teacher behind its last tap, which the classifier has to read alone. Where it
    reads a class token, that is given the mean of r(x), and a student's class token takes the place
    of x. A teacher whose last feature has negative values, as transformers and pre-activation
    networks have, cannot be reached through the ReLU: set `connector_relu` to false, which the
    paper does not. Their share of the mean square of the teacher's pooled feature is logged as
    `unreachable`, and more than a hundredth is reported.

    Args:
        student: the network.
        teacher: a trained network for the same classes.
        task: what the labels mean; each image has one class.
        classifier_weight: weight β ≥ 0 of the distance of scores; 1 in the code. 0 leaves it out.
        feature_weight: weight βk ≥ 0 of the distance of pooled features; 1 in the code, see above.
            0 leaves it out.
        connector_relu: whether the connector ends in a ReLU, as in the paper.
        open_set: whether images without labels are distilled, too, and in whose batches: "none"
            leaves them out, as the paper of 2021 does; "joint", the first form of the code of 2022;
            "separate", the second.
        soft_weight: weight ≥ 0 of a soft loss towards the teacher's output; none in the paper.
        temperature: τ > 0 of the soft loss.
    """

    provenance = Provenance.CODE
    needs = Needs(image_labels=True, extra=True)

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        classifier_weight: float = 1.0,
        feature_weight: float = 1.0,
        connector_relu: bool = True,
        open_set: Literal["none", "joint", "separate"] = "none",
        soft_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(student, teacher, task, soft_weight, temperature)
        reads_scores = bool(classifier_weight or soft_weight)
        distills = bool(classifier_weight or feature_weight)
        self.open_set = open_set if distills else "none"
        self.teacher_reads = "pooled" if self.open_set == "none" else "features"
        self.needs = self.needs._replace(teacher_scores=reads_scores, extra=self.open_set != "none")
        self.classifier_weight, self.feature_weight = classifier_weight, feature_weight
        self.connector_relu = connector_relu
        self.student_tap, self.teacher_tap = student.names[-1], teacher.names[-1]
        self.classifier = self.connector = None
        if classifier_weight:
            self.classifier = TeacherClassifier(cast(Taps, teacher.network), task.example)
        if distills:
            channels = student.shapes[self.student_tap][0], teacher.shapes[self.teacher_tap][0]
            self.connector = build_connector(*channels, connector_relu)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, and as far as they have a weight `classifier`, `feature` and `soft`."""
        passes = [self._pass(part) for part in self._parts(batch)]
        labeled = len(batch.inputs)
        outputs = passes[0].outputs[:labeled]
        losses = self._output_losses(outputs, passes[0].scores[:labeled], batch)
        if self.connector is None:
            return StepOutput(outputs, losses)
        scores, target, x = (torch.cat(parts) for parts in list(zip(*passes, strict=True))[1:])
        if self.classifier is not None:
            distance = mean_squared_error(self.classifier(x), scores)
            losses["classifier"] = self.classifier_weight * distance
        if self.feature_weight:
            distance = mean_squared_error(x.mean((2, 3)), target)
            losses["feature"] = self.feature_weight * distance
        monitors = {UNREACHABLE: negative_share(target)} if self.connector_relu else {}
        return StepOutput(outputs, losses, monitors)

    def _parts(self, batch: Batch) -> list[Batch]:
        """The images of each pass, those with labels first."""
        if self.open_set == "none":
            return [batch]
        if batch.extra is None:
            raise ConfigError(
                f"srrl with open_set={self.open_set} learns from images without labels, too: fill "
                "Batch.extra, as LoaderWithExtra does"
            )
        both = [batch.inputs, batch.extra]
        passes = [torch.cat(both)] if self.open_set == "joint" else both
        return [batch._replace(inputs=images) for images in passes]

    def _pass(self, batch: Batch) -> "_Pass":
        outputs, features, vector = self.student.forward_pooled(batch.inputs)
        scores, target = self.teacher.pooled(batch)
        token = vector[:, :, None, None]
        last = token if self.student.class_token else features[self.student_tap]
        return _Pass(
            outputs, scores, target, last if self.connector is None else self.connector(last)
        )

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """A teacher's feature that the connector's ReLU cannot reach."""
        return unreachable_warning(monitors, self.teacher_tap, "connector")


class _Pass(NamedTuple):
    """The student's output, the teacher's scores and pooled feature (B, C), and the student's map.

    The map (B, C, H, W) is the last feature behind the connector, if there is one.
    """

    outputs: Tensor
    scores: Tensor
    target: Tensor
    x: Tensor


class TeacherClassifier(Frozen):
    """What a network computes behind its last tap, from any map of as many channels to its scores.

    Its modules are the network's own, and stay frozen.

    Args:
        taps: the network.
        example: images by which the form of the feature at the tap is found.

    Raises:
        ConfigError: the network cannot be cut at the tap.
    """

    def __init__(self, taps: Taps, example: Tensor) -> None:
        name = taps.names[-1]
        super().__init__(split_at(taps.network, [name])[-1])
        device = next((p.device for p in taps.parameters()), example.device)
        with torch.no_grad():
            _, raw = taps.forward_features(example.to(device), raw=True)
        self.shape, self.raw_shape = taps.shapes[name], tuple(raw[name].shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to scores (B, K); averaged or repeated to the size of the network's map."""
        height, width = self.shape[1:]
        if x.shape[-2:] != (height, width):
            x = F.adaptive_avg_pool2d(x, (height, width))
        if len(self.raw_shape) == 1:  # a vector
            x = x.flatten(1)
        elif len(self.raw_shape) == 2:  # tokens, of which those of no place come first
            x = x.flatten(2).mT
            prefix = x.mean(1, keepdim=True).expand(-1, self.raw_shape[0] - height * width, -1)
            x = torch.cat([prefix, x], 1)
        elif self.raw_shape != self.shape:  # channels last
            x = x.permute(0, 2, 3, 1)
        return cast(Tensor, self.network(x.clone()))  # its first layer may work in place


def build_connector(in_channels: int, out_channels: int, relu: bool) -> nn.Sequential:
    """A 1×1 convolution, drawn with the variance 2 / out_channels, batch norm and maybe ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    activation = [nn.ReLU()] if relu else []
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), *activation)


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of two matrices in fp32."""
    return (prediction.float() - target.float()).square().mean()
