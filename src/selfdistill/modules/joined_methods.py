"""Several methods joined on one student."""

import functools
import operator
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..core import Batch, ConfigError, Frozen, Method, Progress, Provenance, StepOutput
from ..taps import Taps


class JoinedMethods(Method):
    """Several methods on one student, trained with the sum of their loss terms.

    The supervised loss of the student's output, the term `task`, is that of the first method alone.
    Every term is logged as METHOD/TERM. All methods share the student's pass over an input, and
    those that learn from a teacher share the teacher's.

    Args:
        parts: methods by name, all built around `student`, in order.
        student: the shared student with taps, also for methods that take a bare network.
        teacher: the shared teacher with taps, if there is one.

    Raises:
        ConfigError: the methods cannot go together.
    """

    kind = "self"
    provenance = Provenance.PAPER

    def __init__(
        self, parts: Mapping[str, Method], student: Taps, teacher: Taps | None = None
    ) -> None:
        super().__init__()
        check_joinable({name: type(part) for name, part in parts.items()})
        self.student, self.parts = student, nn.ModuleDict(parts)
        self.teacher = None if teacher is None else Frozen(teacher)
        self.needs = functools.reduce(operator.or_, (part.needs for part in parts.values()))
        self.cycles = max(part.cycles for part in parts.values())
        if self.cycles > 1 and {part.cycles for part in parts.values()} - {1, self.cycles}:
            raise ConfigError("these methods cut the run into different numbers of cycles")
        names = [n for part in parts.values() for n in part.predictors() if n != "student"]
        if duplicate := next((name for name in names if names.count(name) > 1), None):
            owners = [name for name, part in parts.items() if duplicate in part.predictors()]
            raise ConfigError(
                f"{' and '.join(owners)} cannot go together: each puts its own '{duplicate}' on "
                "the student; take one of them"
            )

    def _methods(self) -> list[tuple[str, Method]]:
        return list(self.parts.items())  # type: ignore[arg-type]

    def _shared(self) -> list[Taps]:
        """The networks whose pass over an input serves all methods."""
        teacher = [] if self.teacher is None else [self.teacher.network]
        return [self.student, *teacher]  # type: ignore[list-item]

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """All terms of all methods, but the `task` of the first one only."""
        losses: dict[str, Tensor] = {}
        monitors: dict[str, Tensor] = {}
        outputs: Any = None
        with ExitStack() as stack:
            for taps in self._shared():
                stack.enter_context(taps.shared_forward())
            for i, (name, part) in enumerate(self._methods()):
                step = part(batch, progress)
                outputs = step.outputs if i == 0 else outputs
                terms = {t: v for t, v in step.losses.items() if i == 0 or t != "task"}
                losses |= {f"{name}/{term}": value for term, value in terms.items()}
                monitors |= {f"{name}/{key}": value for key, value in step.monitors.items()}
        return StepOutput(outputs, losses, monitors)

    def predictors(self) -> dict[str, nn.Module]:
        """The predictors of all methods, and `student`."""
        networks: dict[str, nn.Module] = {}
        for _, part in self._methods():
            networks |= part.predictors()
        networks.pop("student")
        return {**networks, "student": self.student.network}

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """The outputs of all predictors, the student's pass shared."""
        outputs: dict[str, Any] = {}
        with self.student.shared_forward():
            for _, part in self._methods():
                if len(part.predictors()) > 1:
                    outputs |= part.predict(inputs)
            outputs.pop("student", None)
            return {**outputs, "student": self.student(inputs)}

    def after_step(self, progress: Progress) -> None:
        """Calls that of each method."""
        for _, part in self._methods():
            part.after_step(progress)

    def after_epoch(self, held_out: Iterable[Batch]) -> None:
        """Calls that of each method."""
        for _, part in self._methods():
            part.after_epoch(held_out)

    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of each method; a shared parameter is in the first that has it."""
        groups: list[dict[str, Any]] = []
        grouped: set[int] = set()
        for _, part in self._methods():
            for group in part.param_groups():
                new = [p for p in group["params"] if id(p) not in grouped]
                grouped |= {id(p) for p in new}
                groups += [{**group, "params": new}] if new else []
        return groups

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """The diagnosis of each method by its own monitors."""
        diagnosis: dict[str, str] = {}
        for name, part in self._methods():
            prefix = f"{name}/"
            values = {
                k.removeprefix(prefix): v for k, v in monitors.items() if k.startswith(prefix)
            }
            diagnosis |= {prefix + key: text for key, text in part.diagnose(values).items()}
        return diagnosis


def joined_parts(method: Method) -> dict[str, Method]:
    """The methods that one consists of by name, or itself under ""."""
    return dict(method._methods()) if isinstance(method, JoinedMethods) else {"": method}


def check_joinable(parts: Mapping[str, type[Method]]) -> None:
    """Raises `ConfigError` if methods cannot go together, as far as their classes tell."""
    for name, part in parts.items():
        if part.kind == "baseline":
            raise ConfigError(f"'{name}' has nothing to add to another method; leave it out")
        if part.composite:
            raise ConfigError(
                f"'{name}' trains a network of its own making, which no other method does; take it "
                "alone"
            )
    online = [name for name, part in parts.items() if part.kind == "online"]
    if len(online) > 1:
        raise ConfigError(
            f"{' and '.join(online)} cannot go together: each trains the peers; take one of them"
        )
