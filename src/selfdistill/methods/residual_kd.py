from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ..core import METHODS, Batch, ConfigError, Method, Progress, Provenance, StepOutput, Task
from ..costs.macs import network_cost
from ..functional.attention import pooled_to
from ..models.layers import conv_bn
from ..modules.composite import CompositeNetwork
from ..modules.narrowing import widest_chain
from ..modules.pairs import paired_shapes
from ..taps import Taps, Teacher, as_map
from ..taps.stage_detection import evaluation_mode


@METHODS.add("residual-kd")
class ResidualDistillation(Method):
    r"""Let a student mimic a teacher's features and an assistant learn what is left of them.

    Residual knowledge distillation, Gao et al. 2020, https://arxiv.org/abs/2002.09168. A
    reconstruction from the abstract, which states that the student mimics the teacher's features,
    that an assistant learns the residual, and that both are derived from one given network without
    more computation; formulas, stages of training and the way of cutting are ours. Student S and
    assistant A are narrower copies of the given network, with the first and the last channels of
    its layers' weights; they are as wide as the multiply-adds of the given network allow, of which
    A has `assistant_fraction`. With F their maps at tap l and of the teacher T, where a 1×1
    convolution and batch norm bring those of S and A to the teacher's channels,

    .. math::
        L = L_{task}(h(F_S^L + F_A^L)) + \beta \sum_l \overline{(F_S^l - F_T^l)^2}
            + \gamma \sum_l \overline{\left( F_A^l - sg(F_T^l - F_S^l) \right)^2}

    where h is a head, L the last tap, and the bars are means over images, channels and places.
    What is deployed is all of the first term: S, A, the two convolutions at the last tap, and h.

    Of the `schedule`, "two-stage" trains S and h in the first half of the run, without A, and A and
    h in the second one, with S as it then stands; "progressive" trains A tap by tap, each part with
    its residual in an equal share of the run, and h again with the last one; "joint" trains all at
    once. With the cosine schedule the learning rate restarts in each part of the run. What is
    frozen has no gradient, and its batch statistics stay.

    Args:
        student: the network whose copies are made; its layers have to be such that narrower ones
            fit together, and it has to be one that can be cut at its taps.
        teacher: a trained network with as many taps as the student.
        task: what the labels mean.
        schedule: when A is trained, see above.
        assistant_fraction: fraction of the multiply-adds that A may have, in (0, 1).
        feature_weight: weight β > 0 of the student's distance from the teacher; chosen here.
        residual_weight: weight γ > 0 of the assistant's distance from the residual; chosen here.
    """

    kind = "offline"
    provenance = Provenance.ABSTRACT
    default_taps = "stages"
    composite = True
    cycle: Tensor

    def __init__(
        self,
        student: Taps,
        teacher: Teacher,
        task: Task,
        *,
        schedule: Literal["two-stage", "progressive", "joint"] = "two-stage",
        assistant_fraction: float = 0.25,
        feature_weight: float = 1.0,
        residual_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < assistant_fraction < 1:
            raise ConfigError(
                f"assistant_fraction={assistant_fraction:g} must be between 0 and 1; the default "
                "is 0.25"
            )
        if min(feature_weight, residual_weight) <= 0:
            raise ConfigError("feature_weight and residual_weight must be above 0; both are 1")
        paired_shapes(student, teacher)
        channels = [shape[0] for shape in teacher.shapes.values()]
        self.student = assisted_network(student, channels[-1], task, assistant_fraction)
        self.teacher, self.task = teacher, task
        self.feature_weight, self.residual_weight = feature_weight, residual_weight
        self.student_adapters, self.assistant_adapters = (
            nn.ModuleList(map(adapter, widths, channels[:-1]))
            for widths in self.student.channels(task.example)
        )
        self.schedule, self.num_taps = schedule, len(channels)
        self.cycles = {"two-stage": 2, "progressive": 1 + self.num_taps, "joint": 1}[schedule]
        self.needs = self.needs._replace(run_length=self.cycles > 1)
        self.register_buffer("cycle", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_post_hook(_restore_cycle)
        self.enter_cycle(0)

    def enter_cycle(self, cycle: int) -> None:
        """Freeze and unfreeze what this part of the run wants, 0 … cycles − 1."""
        # For `forward` to read without waiting for the device; a compiled step is compiled anew.
        self.student_learns = cycle == 0
        first, last = 1, self.num_taps
        if self.schedule != "joint" and cycle == 0:
            last = 0
        elif self.schedule == "progressive":
            first = last = cycle
        self.learning_taps = range(first, last + 1)  # of the assistant
        self.assistant_counts = last == self.num_taps
        self.cycle.fill_(cycle)
        self.student.assistant_counts.fill_(self.assistant_counts)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of all that learns; what is frozen keeps its batch statistics."""
        super().train(mode)
        if not self.student_learns:
            for frozen in (self.student.student, self.student.adapters[0], self.student_adapters):
                frozen.eval()
        parts = zip(self.student.assistant, self.assistant_adapters, strict=False)
        for trained, _ in zip(parts, range(1, self.learning_taps.start), strict=False):
            for frozen in trained:
                frozen.eval()
        return self

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`task`, and `student/l` and `assistant/l` of each tap, the latter 0 before A begins."""
        _, features = self.teacher.forward_features(batch.inputs)
        with _gradients(self.student_learns):
            maps = self.student.maps(self.student.student, batch.inputs)
            maps = _adapted(maps, [*self.student_adapters, self.student.adapters[0]])
        losses, residuals = {}, []
        for number, (x, target) in enumerate(zip(maps, features.values(), strict=True), 1):
            residual = pooled_to(target, x) - pooled_to(x, target)
            losses[f"student/{number}"] = self.feature_weight * _mean_square(residual)
            residuals.append(residual.detach())
        assistance, terms = self._assist(batch.inputs, residuals)
        total = maps[-1] + assistance if self.assistant_counts else maps[-1]
        with _gradients(self.student_learns or self.assistant_counts):
            outputs = self.student.head(total)
            task = self.task.loss(outputs, batch.targets)
        return StepOutput(outputs, {"task": task, **losses, **terms})

    def _assist(self, x: Tensor, residuals: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The assistant's map at the last tap that learns, and its terms."""
        losses = {f"assistant/{i + 1}": r.new_zeros(()) for i, r in enumerate(residuals)}
        size, adapted = x.shape[2:], x
        adapters = [*self.assistant_adapters, self.student.adapters[1]]
        for number in range(1, self.learning_taps.stop):
            with _gradients(number in self.learning_taps):
                x = self.student.assistant[number - 1](x)
                adapted = adapters[number - 1](as_map(x, size, self.student.prefix_tokens))
                residual = residuals[number - 1]
                distance = _mean_square(pooled_to(adapted, residual) - residual)
            losses[f"assistant/{number}"] = self.residual_weight * distance
        return adapted, losses

    def after_step(self, progress: Progress) -> None:
        """Enters the next cycle where one ends."""
        if self.cycles == 1:
            return
        step, total = int(progress.step), int(progress.total)
        before, after = (done * self.cycles // total for done in (step, step + 1))
        if before < after < self.cycles:
            self.enter_cycle(after)


def _restore_cycle(method: nn.Module, keys: Any) -> None:
    assert isinstance(method, ResidualDistillation)
    method.enter_cycle(int(method.cycle))


def _gradients(wanted: bool) -> AbstractContextManager[Any]:
    return nullcontext() if wanted else torch.no_grad()


def _mean_square(x: Tensor) -> Tensor:
    return x.float().square().mean()


class AssistedNetwork(CompositeNetwork):
    """The head on the sum of a student's and an assistant's last maps.

    Args:
        student, assistant: each a chain of modules, of which module l ends at tap l.
        channels: of the sum.
        task: whose head it is.
        prefix_tokens: of the networks, see `as_map`.
    """

    assistant_counts: Tensor

    def __init__(
        self,
        student: Sequence[nn.Module],
        assistant: Sequence[nn.Module],
        channels: int,
        task: Task,
        prefix_tokens: int,
    ) -> None:
        super().__init__()
        self.student, self.assistant = nn.ModuleList(student), nn.ModuleList(assistant)
        self.prefix_tokens = prefix_tokens
        widths = [widths[-1] for widths in self.channels(task.example)]
        self.adapters = nn.ModuleList(adapter(width, channels) for width in widths)
        self.sum, self.head = nn.Identity(), task.head(channels)
        # An integer, since an average of the weights copies it; 0 until the assistant has learned.
        self.register_buffer("assistant_counts", torch.ones((), dtype=torch.int64))
        self.cuts = (*(f"student.{i}" for i in range(len(student) - 1)), "sum")

    def forward(self, x: Tensor) -> Any:
        """(B, C, H, W) to the task's outputs."""
        maps = [self.maps(parts, x)[-1] for parts in (self.student, self.assistant)]
        mimicked, residual = _adapted(maps, self.adapters)
        return self.head(self.sum(mimicked + self.assistant_counts * residual))

    def maps(self, parts: nn.ModuleList, x: Tensor) -> list[Tensor]:
        """The map (B, C, H, W) of each tap of a chain."""
        size, maps = x.shape[2:], []
        for part in parts:
            x = part(x)
            maps.append(as_map(x, size, self.prefix_tokens))
        return maps

    def channels(self, example: Tensor) -> list[list[int]]:
        """Of each map of the student and of the assistant."""
        with evaluation_mode(self):
            chains = [self.maps(parts, example) for parts in (self.student, self.assistant)]
        return [[x.shape[1] for x in maps] for maps in chains]


def adapter(in_channels: int, out_channels: int) -> nn.Module:
    """Nothing, or a 1×1 convolution and batch norm where the channels differ."""
    if in_channels == out_channels:
        return nn.Identity()
    return conv_bn(in_channels, out_channels, 1, relu=False)


def _adapted(maps: Sequence[Tensor], adapters: Iterable[nn.Module]) -> list[Tensor]:
    return [adapter(x) for adapter, x in zip(adapters, maps, strict=True)]


def assisted_network(
    student: Taps, channels: int, task: Task, assistant_fraction: float
) -> AssistedNetwork:
    """Student and assistant, cut out of one network, that cost no more than it does.

    Args:
        student: the given network.
        channels: of the map that the head reads.
        task: whose head it is.
        assistant_fraction: the assistant's part of the multiply-adds.

    Raises:
        ConfigError: the network cannot be cut at its taps, or no narrower copy of it runs, or is
            cheap enough.
    """
    example = task.example
    budget = network_cost(student.network, example).macs

    def chain_cost(parts: list[nn.Module]) -> int:
        return network_cost(nn.Sequential(*parts), example).macs

    limit = assistant_fraction * budget
    width, assistant = widest_chain(
        student, assistant_fraction, chain_cost, limit, example, from_end=True
    )

    def assisted(parts: list[nn.Module]) -> AssistedNetwork:
        return AssistedNetwork(parts, assistant, channels, task, student.prefix_tokens)

    def whole_cost(parts: list[nn.Module]) -> int:
        return network_cost(assisted(parts), example).macs

    student_width, parts = widest_chain(
        student, 1 - assistant_fraction, whole_cost, budget, example
    )
    network = assisted(parts)
    network.description = (
        f"student of {student_width:.2f} and assistant of {width:.2f} of the width of "
        f"{type(student.network).__name__}"
    )
    return network
