"""Row of a paper's table: the published scores, and the recipe that reproduces them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core import ConfigError
from ..recipe.options import method_classes
from ..recipe.schema import Recipe, parse, write
from .reported_value import ReportedValue

ROOT = Path("runs/reproduce")

FIGURES_SOURCES = {
    "paper": "the paper's own text",
    "quoted": "a paper that quotes it",
    "code": "the README of public code",
    "notes": "notes of others about the paper",
}
"""Texts in which published scores were read."""


@dataclass(frozen=True)
class PaperRow:
    """One training run of a paper.

    Attributes:
        name: SYSTEM/TABLE/NETWORK/ROW.
        source: the paper.
        title: of the table.
        metric: of the table's figures, for people.
        score: name of that metric in the scores of a run.
        published: {predictor: figure}; empty where none could be read. `average` is the mean of
            networks that train together.
        figures_source: text in which the figures were read, a key of `FIGURES_SOURCES`.
        epoch: what is known of the epoch that the figures belong to.
        cost: parameters and operations as printed, or "".
        stated: parts of the recipe that stand in the source.
        deviations: parts of the recipe that are not known to be the paper's.
        not_runnable_reason: why the row cannot be trained here, or "".
        same_run_as: name of the row whose run this is, or "".
        keys: of its recipe.
        teacher: row that its teacher is trained by, or None.
    """

    name: str
    source: str
    title: str
    metric: str
    score: str
    published: Mapping[str, ReportedValue]
    figures_source: str
    epoch: str
    cost: str
    stated: str
    deviations: tuple[str, ...]
    not_runnable_reason: str
    same_run_as: str
    keys: Mapping[str, Any]
    teacher: "PaperRow | None" = field(default=None, repr=False)

    @property
    def run_name(self) -> str:
        """Name of the row whose run this is: another one's, or its own."""
        return self.same_run_as or self.name

    def recipe(self, seed: int = 0, root: Path = ROOT, **changes: Any) -> Recipe:
        """Complete recipe of one run.

        Args:
            seed: of the run; a teacher has seed 0.
            root: directory of all runs, the teacher's too.
            changes: keys of the recipe that differ from the row's.

        Raises:
            ConfigError: the row cannot be trained here.
        """
        if self.not_runnable_reason:
            raise ConfigError(f"{self.name} cannot be run: {self.not_runnable_reason}")
        keys = {**self.keys, **changes, "seed": seed}
        if self.teacher:
            keys["teacher"] = self.teacher.run_dir(0, root, **changes).as_posix()
            keys["teacher_model"] = self.teacher.keys["model"]
        return parse(keys)

    def run_dir(self, seed: int, root: Path = ROOT, **changes: Any) -> Path:
        """Directory of one run; a run that holds other images out has a directory of its own."""
        variant = [f"val{changes['val_fraction']:g}"] if "val_fraction" in changes else []
        return root.joinpath(*self.run_name.split("/"), *variant, f"s{seed}")

    def to_toml(self) -> str:
        """The recipe as TOML, with the description of the row as comments above it."""
        header = "\n".join(f"# {line}" for line in self.description())
        return f"{header}\n\n{write(self.recipe())}"

    def description(self) -> list[str]:
        """All that is known of the row, a line each."""
        figures = ", ".join(f"{name} {figure}" for name, figure in self.published.items())
        teacher = self.teacher.name if self.teacher else ""
        runnable = not self.not_runnable_reason
        facts = [
            ("Source", self.source),
            ("Table", self.title),
            (f"Published, {self.metric}", figures or "could not be read"),
            ("Counted as", self.cost),
            ("Read in", FIGURES_SOURCES[self.figures_source] if self.published else ""),
            ("Epoch", self.epoch),
            ("The same run as", self.same_run_as),
            ("Teacher", teacher),
            ("Stated", self.stated),
            ("Method implemented from", self._provenance() if runnable else ""),
            *(("Deviation", deviation) for deviation in self.deviations),
            ("Cannot be run", self.not_runnable_reason),
        ]
        return [self.name, *(f"{name}: {text}" for name, text in facts if text)]

    def _provenance(self) -> str:
        classes = method_classes(self.keys["method"]).values()
        return " · ".join(dict.fromkeys(method.provenance.value for method in classes))
