"""Exits on a network's stages, and the frame of the methods that train them."""

from typing import Any

from torch import Tensor, nn

from ..core import ConfigError, Method, Task
from ..taps import Taps
from .bottlenecks import BOTTLENECKS


class Exits(nn.Module):
    """A bottleneck, and a prediction head if wanted, on every tap but the last.

    Args:
        student: a network with two taps or more.
        task: makes the heads and their losses.
        bottleneck: ``"slim"`` or ``"byot"``, see `modules/bottlenecks.py`; None leaves features as
            they are, where nothing would train a bottleneck or the head is to read the feature.
        predict: whether the exits have heads.

    Raises:
        ConfigError: fewer than two taps.
    """

    def __init__(
        self, student: Taps, task: Task, bottleneck: str | None, *, predict: bool = True
    ) -> None:
        super().__init__()
        if len(student.names) < 2:
            raise ConfigError(
                f"exits need two taps or more, not {len(student.names)}; "
                "`selfdistill taps MODEL` lists the modules to tap"
            )
        self.task = task
        *shallow, last = student.shapes.values()
        self.bottlenecks = nn.ModuleList(
            BOTTLENECKS[bottleneck](shape, last) if bottleneck else nn.Identity()
            for shape in shallow
        )
        self.heads = nn.ModuleList(
            task.head(last[0] if bottleneck else shape[0]) for shape in shallow if predict
        )

    def forward(self, features: dict[str, Tensor]) -> tuple[list[Tensor], list[Any]]:
        """{tap: (B, C, H, W)} -> maps and outputs of the exits, in order.

        Maps are (B, C_last, h, w) behind bottlenecks, else the features themselves.
        """
        shallow = list(features.values())[:-1]
        maps = [bottleneck(x) for bottleneck, x in zip(self.bottlenecks, shallow, strict=True)]
        return maps, [head(m) for head, m in zip(self.heads, maps, strict=False)]

    def losses(
        self,
        exit_outputs: list[Any],
        last_output: Any,
        targets: Any,
        supervised_weight: float,
        soft_weight: float,
        temperature: float,
    ) -> dict[str, Tensor]:
        """`task/i` and `soft/i` of each exit i; no gradient goes into the last output."""
        losses: dict[str, Tensor] = {}
        mask = self.task.valid_mask(targets)
        for i, outputs in enumerate(exit_outputs, 1):
            if supervised_weight:
                losses[f"task/{i}"] = supervised_weight * self.task.loss(outputs, targets)
            if soft_weight and self.task.outputs_compatible(outputs, last_output):
                soft_loss = self.task.soft_loss(
                    outputs, last_output.detach(), temperature, mask=mask
                )
                losses[f"soft/{i}"] = soft_weight * soft_loss
        return losses

    def predict(self, student: Taps, inputs: Tensor) -> dict[str, Any]:
        """The outputs of all exits and of the student in one pass."""
        student_outputs, features = student.forward_features(inputs)
        _, exit_outputs = self(features)
        outputs = {f"exit{i}": x for i, x in enumerate(exit_outputs, 1)}
        return {**outputs, "student": student_outputs}

    def predictors(self, student: Taps) -> dict[str, nn.Module]:
        """Each exit with a head as a network, `exit1`, `exit2`, …, then `student`."""
        parts = zip(student.names, self.bottlenecks, self.heads, strict=False)
        networks = {
            f"exit{i}": EarlyExit(student, name, nn.Sequential(bottleneck, head))
            for i, (name, bottleneck, head) in enumerate(parts, 1)
        }
        return {**networks, "student": student.network}


class ExitMethod(Method):
    """A method that leaves behind the exits `self.exits` of its student beside the student.

    Attributes:
        student: the network with its taps.
        exits: on those taps.
    """

    student: Taps
    exits: Exits

    def predictors(self) -> dict[str, nn.Module]:
        """`exit1`, `exit2`, … (if they have heads) and `student`."""
        return self.exits.predictors(self.student)

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """The outputs of all exits and of the student in one pass."""
        return self.exits.predict(self.student, inputs)


class EarlyExit(nn.Module):
    """The network up to a tap with an exit's layers; the layers behind the tap are not computed.

    Args:
        student: the network with its taps.
        name: the tap.
        head: from the feature (B, C, H, W) to the output.
    """

    def __init__(self, student: Taps, name: str, head: nn.Module) -> None:
        super().__init__()
        self.student, self.name, self.head = student, name, head

    def forward(self, x: Tensor) -> Any:
        """The exit's output."""
        return self.head(self.student.forward_until(self.name, x))
