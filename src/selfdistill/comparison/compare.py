"""Methods × seeds × one recipe: trained, judged side by side, and written down."""

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from .. import methods as _all  # noqa: F401  importing them is what registers them
from ..core import ConfigError, MissingExtraError, nearest
from ..engine.run_directory import RunDirectory
from ..recipe.schema import read
from .directory import ASKED, StudyDirectory
from .grid import Study, extended, plan
from .jobs import LOG, JobResult, RunJob
from .launch import run_here, share_out
from .results import LAST, RowResult, RunOutcome, headlines, results, results_csv, summary_csv
from .rows import parse_rows, parse_seeds
from .slurm import run_on_slurm

LAUNCHERS = ("local", "submitit")


class ComparisonCallback(Protocol):
    """Who is told how a study goes on."""

    def begin(self, study: Study, path: Path, done: int, how: str) -> None:
        """So many of the runs are there already; the others are made in this way."""

    def ended(self, outcome: RunOutcome, seconds: float) -> None:
        """A run is finished or has failed."""

    def warn(self, sentence: str) -> None:
        """What a run warned of."""


class _NullCallback:
    """Is told nothing."""

    def begin(self, study: Study, path: Path, done: int, how: str) -> None: ...
    def ended(self, outcome: RunOutcome, seconds: float) -> None: ...
    def warn(self, sentence: str) -> None: ...


@dataclass(frozen=True)
class Comparison:
    """A study and what came of it.

    Attributes:
        path: its directory.
        study: rows, recipes and seeds.
        outcomes: of every run, in the order of the study.
        results: mean, spread and difference of every predictor of every row.
    """

    path: Path
    study: Study
    outcomes: list[RunOutcome]
    results: list[RowResult]

    @property
    def summary(self) -> list[RowResult]:
        """What the comparison is about: one result for each row, the baseline first."""
        return headlines(self.study, self.results)

    @property
    def failed(self) -> list[RunOutcome]:
        """The runs that failed."""
        return [outcome for outcome in self.outcomes if outcome.failure]


def compare(
    methods: str | Sequence[str] = (),
    *,
    seeds: str | int | Sequence[int] = "0-4",
    recipe: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    exit: str | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    launcher: str = "local",
    slurm: Mapping[str, Any] | None = None,
    watcher: ComparisonCallback | None = None,
    **keys: Any,
) -> Comparison:
    """Train every method with every seed by one recipe, and compare them with the baseline.

    Runs are processes of their own. Those that are there are not made again, those that were begun
    go on, so that the same call resumes a study, and a call with more rows or seeds extends it.

    Args:
        methods: rows, each METHOD, METHOD:key=value,… or NAME=METHOD:…; none is the recipe's.
        seeds: numbers, or text like ``"0-4"`` or ``"0,3"``.
        recipe: a TOML file to start from.
        out: the study's directory; None is ``studies/DATA-MODEL``.
        resume: go on with the study in `out`, as it was asked for.
        exit: the predictor that is compared with the baseline's student; None is the student.
        jobs: runs at a time; None is one for each GPU, or else for each core.
        threads: of each run; None shares the cores out.
        launcher: "local", or "submitit" for a SLURM cluster.
        slurm: options for it, by submitit's names.
        watcher: who is told how it goes on; None is nobody.
        keys: any key of a recipe, and options, which go to every method that has them.

    Raises:
        ConfigError: a row, seed, key or option that does not fit, or a directory that holds
            something else.
        RunBusyError: another process works on the study.

    Examples:
        >>> found = compare("muse,byot", seeds="0-2", epochs=20)  # doctest: +SKIP
        >>> [(r.row, r.mean, r.difference) for r in found.summary]  # doctest: +SKIP
    """
    _check(jobs, threads, launcher, slurm)
    texts = [methods] if isinstance(methods, str) else list(methods)
    study = None if resume else _asked(texts, seeds, recipe, keys)
    directory = StudyDirectory(Path(out) if out else _default_place(study))
    if directory.read() is None and resume:
        raise ConfigError(f"{directory.path} holds no study (no {ASKED} in it)")
    with directory.held():
        study = _together(directory.read(), study, directory.path, exit)
        directory.write(study)
        work = _StudyRunner(study, directory, watcher or _NullCallback())
        orders = work.open_orders()
        if launcher == "local":
            machine = share_out(study.rows[study.baseline], len(orders), jobs, threads)
            return work.through(orders, run_here(orders, machine), str(machine))
        folder = directory.path / "slurm"
        ends = run_on_slurm(orders, folder, slurm or {}, jobs, threads)
        return work.through(orders, ends, "as jobs of SLURM")


def _check(
    jobs: int | None, threads: int | None, launcher: str, slurm: Mapping[str, Any] | None
) -> None:
    """Raises `ConfigError` if the runs cannot be made in this way."""
    if launcher not in LAUNCHERS:
        raise ConfigError(f"--launcher is local or submitit{nearest(launcher, LAUNCHERS)}")
    if slurm and launcher != "submitit":
        raise ConfigError("--slurm is for --launcher submitit")
    for name, number in (("jobs", jobs), ("threads", threads)):
        if number is not None and number < 1:
            raise ConfigError(f"--{name} is 1 or more, not {number}")


def _asked(
    texts: Sequence[str],
    seeds: str | int | Sequence[int],
    recipe: str | Path | None,
    keys: Mapping[str, Any],
) -> Study:
    """The study that the arguments describe."""
    file = read(Path(recipe)) if recipe else {}
    return plan(parse_rows(texts), parse_seeds(seeds), file=file, keys=keys)


def _default_place(study: Study | None) -> Path:
    if study is None:
        raise ConfigError("which study is to be resumed? name its directory")
    recipe = study.rows[study.baseline]
    words = (Path(recipe.data.split(":")[-1]).stem, recipe.model.split("/")[-1])
    return Path("studies") / "-".join(words)


def _together(held: Study | None, asked: Study | None, path: Path, exit: str | None) -> Study:
    """The study that is there, with what is asked for."""
    study = extended(held, asked, str(path)) if held and asked else held or asked
    assert study is not None, "a study is either there or asked for"
    return replace(study, exit=exit or (held.exit if held else LAST))


class _StudyRunner:
    """A study while its runs are made."""

    def __init__(
        self, study: Study, directory: StudyDirectory, watcher: ComparisonCallback
    ) -> None:
        self.study, self.directory, self.watcher = study, directory, watcher
        self.warned: set[str] = set()
        self.found = {c: RunOutcome(*c, directory.exits(study, *c)) for c in study.cells}

    def open_orders(self) -> list[RunJob]:
        """The runs that are to be made, or made again."""
        return [self.directory.order(*cell) for cell, o in self.found.items() if not o.exits]

    def through(self, orders: Sequence[RunJob], ends: Iterator[JobResult], how: str) -> Comparison:
        """Make the runs, and keep tables and page up with them."""
        self.watcher.begin(self.study, self.directory.path, len(self.found) - len(orders), how)
        comparison = self.write_down()
        for order in orders:
            self.directory.wait_until_free(order)
        with closing(ends):  # type: ignore[type-var]
            for ended in ends:
                outcome = self.outcome(ended)
                self.found[outcome.row, outcome.seed] = outcome
                self.watcher.ended(outcome, ended.seconds)
                comparison = self.write_down()
        return comparison

    def outcome(self, ended: JobResult) -> RunOutcome:
        """What a process left behind; its warnings are told, each once."""
        order = ended.order
        for warning in re.findall(r"^warning: (.*)$", ended.log, re.MULTILINE):
            if warning not in self.warned:
                self.warned.add(warning)
                self.watcher.warn(f"{order.row} s{order.seed}: {warning}")
        exits = self.directory.exits(self.study, order.row, order.seed)
        if exits:
            return RunOutcome(order.row, order.seed, exits)
        return RunOutcome(order.row, order.seed, [], _reason(ended), ended.code or 1)

    def write_down(self) -> Comparison:
        """Tables and page of what there is so far."""
        outcomes = list(self.found.values())
        found = results(self.study, outcomes)
        comparison = Comparison(self.directory.path, self.study, outcomes, found)
        there = RunDirectory(self.directory.path)
        name = self.directory.path.resolve().name
        there.write("results.csv", results_csv(self.study, outcomes))
        there.write("summary.csv", summary_csv(found))
        try:
            from .page import page  # imports matplotlib, if it is installed

            there.write("study.html", page(name, self.study, outcomes, found))
        except MissingExtraError as error:
            self._warn(str(error))
        return comparison

    def _warn(self, sentence: str) -> None:
        """Say a warning once."""
        if sentence not in self.warned:
            self.warned.add(sentence)
            self.watcher.warn(sentence)


def _reason(ended: JobResult) -> str:
    """Why a run failed, in its own words if it had any."""
    said = re.findall(r"^error(?: \(process .*?\))?: (.*)$", ended.log, re.MULTILINE)
    if said:
        return str(said[-1])
    if ended.code < 0:
        return f"it was ended by {signal.Signals(-ended.code).name}, perhaps for want of memory"
    return f"it ended with exit code {ended.code}; see {ended.order.place / LOG}"
