"""One row of a paper's table: what was published, and the recipe that makes it again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core import METHODS, ConfigError
from ..recipe.schema import Recipe, parse, write
from .reported_value import ReportedValue

ROOT = Path("runs/reproduce")

EVIDENCE = {
    "paper": "the paper's own text",
    "quoted": "a paper that quotes it",
    "code": "the README of public code",
    "notes": "notes of others about the paper",
}
"""Where published figures were read."""


@dataclass(frozen=True)
class PaperRow:
    """One training run of a paper.

    Attributes:
        name: SYSTEM/TABLE/NETWORK/ROW.
        source: the paper.
        title: what the table shows.
        metric: what its figures are.
        score: the name of that among the metrics of a run.
        published: {predictor: figure}; empty where none could be read. `average` is the mean of
            networks that train together.
        evidence: where the figures were read, a key of `EVIDENCE`.
        epoch: what is known of the epoch that they belong to.
        cost: parameters and operations as printed, or "".
        stated: what of the recipe stands in the source.
        deviations: what is not known to be as in the paper.
        obstacle: why the row cannot be run here, or "".
        same: the row whose run this is, or "".
        keys: of its recipe.
        teacher: the row that its teacher is trained by, or None.
    """

    name: str
    source: str
    title: str
    metric: str
    score: str
    published: Mapping[str, ReportedValue]
    evidence: str
    epoch: str
    cost: str
    stated: str
    deviations: tuple[str, ...]
    obstacle: str
    same: str
    keys: Mapping[str, Any]
    teacher: "PaperRow | None" = field(default=None, repr=False)

    @property
    def run(self) -> str:
        """The name of the row whose run this is: another one's, or its own."""
        return self.same or self.name

    def recipe(self, seed: int = 0, root: Path = ROOT, **changes: Any) -> Recipe:
        """The complete recipe of one of its runs.

        Args:
            seed: of the run; a teacher has seed 0.
            root: where runs are kept, the teacher's too.
            changes: keys of the recipe that are to be others than the row's.

        Raises:
            ConfigError: the row cannot be run here.
        """
        if self.obstacle:
            raise ConfigError(f"{self.name} cannot be run: {self.obstacle}")
        keys = {**self.keys, **changes, "seed": seed}
        if self.teacher:
            keys["teacher"] = self.teacher.place(0, root, **changes).as_posix()
            keys["teacher_model"] = self.teacher.keys["model"]
        return parse(keys)

    def place(self, seed: int, root: Path = ROOT, **changes: Any) -> Path:
        """The directory of one of its runs; one with other images held out is another run."""
        variant = [f"val{changes['val_fraction']:g}"] if "val_fraction" in changes else []
        return root.joinpath(*self.run.split("/"), *variant, f"s{seed}")

    def text(self) -> str:
        """The recipe as TOML, under all that is known of the row."""
        head = "\n".join(f"# {line}" for line in self.about())
        return f"{head}\n\n{write(self.recipe())}"

    def about(self) -> list[str]:
        """What is known of the row, a line each."""
        figures = ", ".join(f"{name} {figure}" for name, figure in self.published.items())
        lines = [self.name, f"Source: {self.source}", f"Table: {self.title}"]
        lines += [f"Published, {self.metric}: {figures or 'could not be read'}"]
        lines += [f"Counted as: {self.cost}"] if self.cost else []
        lines += [f"Read in: {EVIDENCE[self.evidence]}"] if self.published else []
        lines += [f"Epoch: {self.epoch}"]
        lines += [f"The same run as: {self.same}"] if self.same else []
        lines += [f"Teacher: {self.teacher.name}"] if self.teacher else []
        lines += [f"Stated: {self.stated}"] if self.stated else []
        lines += [f"Method: certain by {self._certain()}"] if not self.obstacle else []
        lines += [f"Deviation: {deviation}" for deviation in self.deviations]
        return lines + ([f"Cannot be run: {self.obstacle}"] if self.obstacle else [])

    def _certain(self) -> str:
        return METHODS[self.keys["method"]].provenance.value
