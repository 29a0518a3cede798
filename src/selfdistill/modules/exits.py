"""A network with exits: the frame that MUSE, BYOT and plain deep supervision share."""

from typing import Any

from torch import Tensor, nn

from ..core import ConfigError, Task
from ..taps import Taps
from .heads import BOTTLENECKS


class Exits(nn.Module):
    """A bottleneck, and a prediction head if wanted, on every tap but the last.

    Args:
        student: a network with two taps or more.
        task: makes the heads and their losses.
        bottleneck: ``"slim"`` or ``"byot"``, see `modules/heads.py`; None leaves features as they
            are, where nothing would train a bottleneck.
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
        self.heads = nn.ModuleList(task.head(last[0]) for _ in shallow if predict)

    def forward(self, features: dict[str, Tensor]) -> tuple[list[Tensor], list[Any]]:
        """{tap: (B, C, H, W)} -> maps (B, C_last, h, w) and outputs of the exits, in order."""
        shallow = list(features.values())[:-1]
        maps = [bottleneck(x) for bottleneck, x in zip(self.bottlenecks, shallow, strict=True)]
        return maps, [head(m) for head, m in zip(self.heads, maps, strict=False)]

    def losses(
        self,
        outputs: list[Any],
        final: Any,
        targets: Any,
        *,
        supervised: float,
        soft: float,
        temperature: float,
    ) -> dict[str, Tensor]:
        """`task/i` and `soft/i` of each exit i; no gradient goes into the final output."""
        terms: dict[str, Tensor] = {}
        for i, out in enumerate(outputs, 1):
            if supervised:
                terms[f"task/{i}"] = supervised * self.task.loss(out, targets)
            if soft and self.task.outputs_compatible(out, final):
                reference = final.detach()
                terms[f"soft/{i}"] = soft * self.task.soft_loss(out, reference, temperature)
        return terms

    def predict(self, student: Taps, inputs: Tensor) -> dict[str, Any]:
        """The outputs of all exits and of the student in one pass."""
        out, features = student.forward_features(inputs)
        _, outputs = self(features)
        return {f"exit{i}": o for i, o in enumerate(outputs, 1)} | {"student": out}

    def predictors(self, student: Taps) -> dict[str, nn.Module]:
        """Each exit as a network of its own, then the student."""
        parts = zip(student.names, self.bottlenecks, self.heads, strict=False)
        exits = {
            f"exit{i}": EarlyExit(student, name, nn.Sequential(bottleneck, head))
            for i, (name, bottleneck, head) in enumerate(parts, 1)
        }
        return {**exits, "student": student.network}


class EarlyExit(nn.Module):
    """The network up to a tap, and what hangs there; the layers behind the tap are not computed.

    Args:
        student: the whole network.
        name: the tap.
        head: from the feature (B, C, H, W) to the output.
    """

    def __init__(self, student: Taps, name: str, head: nn.Module) -> None:
        super().__init__()
        self.student, self.name, self.head = student, name, head

    def forward(self, x: Tensor) -> Any:
        """The exit's output."""
        return self.head(self.student.forward_until(self.name, x))
