"""Methods that add to one another, on one student."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ..core import Batch, ConfigError, Method, Needs, Progress, Provenance, StepOutput
from ..taps import Taps


class JoinedMethods(Method):
    """Several methods on one student: the first one's terms, and those of the others beside them.

    The supervised loss of the student's output, the term `task`, is the first one's alone. Every
    term is logged as METHOD/TERM. The student's pass over one input serves all methods.

    Args:
        parts: methods by name that were built around the same student, in order.
        student: what they were built around; those that want no taps were given it, too.

    Raises:
        ConfigError: the methods cannot go together.
    """

    kind = "self"
    provenance = Provenance.PAPER

    def __init__(self, parts: Mapping[str, Method], student: Taps) -> None:
        super().__init__()
        check_joinable({name: type(part) for name, part in parts.items()})
        self.student, self.parts = student, nn.ModuleDict(parts)
        needs = [part.needs for part in parts.values()]
        self.needs = Needs(*(max(values) for values in zip(*needs, strict=True)))
        self.cycles = max(part.cycles for part in parts.values())
        if self.cycles > 1 and {part.cycles for part in parts.values()} - {1, self.cycles}:
            raise ConfigError("these methods cut the run into different numbers of cycles")
        names = [n for part in parts.values() for n in part.predictors() if n != "student"]
        if twice := next((name for name in names if names.count(name) > 1), None):
            owners = [name for name, part in parts.items() if twice in part.predictors()]
            raise ConfigError(
                f"{' and '.join(owners)} cannot go together: each puts its own '{twice}' on the "
                "student; take one of them"
            )

    def _each(self) -> list[tuple[str, Method]]:
        return list(self.parts.items())  # type: ignore[arg-type]

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """All terms of all methods, but the `task` of the first one only."""
        losses: dict[str, Tensor] = {}
        monitors: dict[str, Tensor] = {}
        outputs: Any = None
        with self.student.shared_forward():
            for place, (name, part) in enumerate(self._each()):
                step = part(batch, progress)
                outputs = step.outputs if place == 0 else outputs
                mine = {t: v for t, v in step.losses.items() if place == 0 or t != "task"}
                losses |= {f"{name}/{term}": value for term, value in mine.items()}
                monitors |= {f"{name}/{what}": value for what, value in step.monitors.items()}
        return StepOutput(outputs, losses, monitors)

    def predictors(self) -> dict[str, nn.Module]:
        """All that the methods leave behind, and `student`."""
        found: dict[str, nn.Module] = {}
        for _, part in self._each():
            found |= {n: network for n, network in part.predictors().items() if n != "student"}
        return {**found, "student": self.student.network}

    def predict(self, inputs: Tensor) -> dict[str, Any]:
        """The output of each, the student's pass shared."""
        outputs: dict[str, Any] = {}
        with self.student.shared_forward():
            for _, part in self._each():
                if len(part.predictors()) > 1:
                    outputs |= part.predict(inputs)
            outputs.pop("student", None)
            return {**outputs, "student": self.student(inputs)}

    def after_step(self, progress: Progress) -> None:
        """Each method's own."""
        for _, part in self._each():
            part.after_step(progress)

    def after_epoch(self, held_out: Iterable[Batch]) -> None:
        """Each method's own."""
        for _, part in self._each():
            part.after_epoch(held_out)

    def param_groups(self) -> list[dict[str, Any]]:
        """Each method's groups; what is shared goes with the first."""
        groups: list[dict[str, Any]] = []
        seen: set[int] = set()
        for _, part in self._each():
            for group in part.param_groups():
                new = [p for p in group["params"] if id(p) not in seen]
                seen |= {id(p) for p in new}
                groups += [{**group, "params": new}] if new else []
        return groups

    def diagnose(self, monitors: Mapping[str, float]) -> dict[str, str]:
        """What each method makes of its own monitors."""
        found: dict[str, str] = {}
        for name, part in self._each():
            start = f"{name}/"
            own = {k.removeprefix(start): v for k, v in monitors.items() if k.startswith(start)}
            found |= {start + what: words for what, words in part.diagnose(own).items()}
        return found


def check_joinable(parts: Mapping[str, type[Method]]) -> None:
    """Raises `ConfigError` if methods cannot go together, as far as their classes tell."""
    for name, part in parts.items():
        if part.kind == "baseline":
            raise ConfigError(f"'{name}' has nothing to add to another method; leave it out")
    online = [name for name, part in parts.items() if part.kind == "online"]
    if len(online) > 1:
        raise ConfigError(
            f"{' and '.join(online)} cannot go together: each trains the peers; take one of them"
        )
