"""Comparison of methods: rows × seeds trained by one recipe, and their tables and page."""

import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import methods as _all  # noqa: F401  importing them is what registers them
from ..core import STUDENT, ConfigError, MissingExtraError, check_kind, nearest
from ..engine.run_directory import RunDirectory
from ..recipe.document import check_early
from ..recipe.schema import read
from .directory import STUDY_FILE, StudyDirectory
from .grid import Study, extend_study, plan_study
from .jobs import LOG, JobResult, RunJob
from .launch import run_locally, share_resources
from .results import (
    RowResult,
    RunOutcome,
    main_results,
    results_csv,
    row_results,
    summary_csv,
)
from .rows import parse_rows, parse_seeds
from .slurm import run_on_slurm
from .verdict import study_verdict

LAUNCHERS = ("local", "submitit")


class ComparisonCallback:
    """Events of a comparison; a subclass overrides those it needs."""

    def on_start(self, study: Study, path: Path, num_done: int, launcher: str) -> None:
        """Before the first run: how many runs are finished already, how the others are launched."""

    def on_run_end(self, outcome: RunOutcome, seconds: float) -> None:
        """After a run has finished or failed."""

    def on_message(self, text: str) -> None:
        """At a warning of a run."""


@dataclass(frozen=True)
class Comparison:
    """A study with its outcomes.

    Attributes:
        path: directory of the study.
        study: rows, recipes and seeds.
        outcomes: of every run, in the order of the study.
        results: mean, standard deviation and difference of every predictor of every row.
    """

    path: Path
    study: Study
    outcomes: list[RunOutcome]
    results: list[RowResult]

    @property
    def summary(self) -> list[RowResult]:
        """Main result of each row, the baseline first."""
        return main_results(self.study, self.results)

    @property
    def verdict(self) -> str:
        """Which row helps, by how much and at what cost, in a sentence or two."""
        return study_verdict(self.study, self.summary, self.outcomes)

    @property
    def failed(self) -> list[RunOutcome]:
        """Runs that failed."""
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
    callback: ComparisonCallback | None = None,
    **keys: Any,
) -> Comparison:
    """Train every method with every seed by one recipe, and compare them with a baseline.

    Every run is a process. Runs that are finished are read, runs that were started are resumed: the
    same call resumes a study, and a call with further rows or seeds extends it.

    Args:
        methods: rows, each METHOD, METHOD:key=value,… or NAME=METHOD:…; without any, the recipe's
            method.
        seeds: numbers, or text like ``"0-4"`` or ``"0,3"``.
        recipe: TOML file to start from.
        out: directory of the study; None is ``studies/DATA-MODEL``.
        resume: resume the study in `out` as it is described there.
        exit: predictor that is compared with the baseline's student; None is the student.
        jobs: number of runs at a time; None is one for each GPU, or else for each core.
        threads: number of CPU threads of each run; None shares the cores out.
        launcher: "local", or "submitit" for a SLURM cluster.
        slurm: options of the cluster, by submitit's names.
        callback: is told the progress.
        keys: keys of a recipe as for `train`, and options of methods, which go to every method
            that has them.

    Raises:
        ConfigError: a row, seed, key or option that does not fit, or a directory that holds
            something else.
        RunBusyError: another process works on the study.

    Examples:
        >>> comparison = compare("muse,byot", seeds="0-2", epochs=20)  # doctest: +SKIP
        >>> [(r.row, r.mean, r.difference) for r in comparison.summary]  # doctest: +SKIP
    """
    _check_launch(jobs, threads, launcher, slurm)
    requested = None if resume else requested_study(methods, seeds, recipe, keys)
    directory = StudyDirectory(Path(out) if out else _default_path(requested))
    callback = callback or ComparisonCallback()
    check_kind(
        "callback", callback, ComparisonCallback, "an object of a ComparisonCallback's class"
    )
    if directory.read() is None and resume:
        raise ConfigError(f"{directory.path} holds no study (no {STUDY_FILE} in it)")
    if requested and directory.read() is None:
        _check_rows(requested, requested.rows)  # before anything is written
    with directory.lock():
        study = _merge_studies(directory.read(), requested, directory.path, exit)
        runner = _StudyRunner(study, directory, callback)
        run_jobs = runner.open_jobs()
        _check_rows(study, dict.fromkeys(job.row for job in run_jobs))
        if exit:  # one that no row has is not to be kept
            main_results(study, row_results(study, list(runner.outcomes.values())))
        directory.write(study)
        if launcher == "local":
            shares = share_resources(study.rows[study.baseline], len(run_jobs), jobs, threads)
            return runner.run(run_jobs, run_locally(run_jobs, shares), str(shares))
        folder = directory.path / "slurm"
        results = run_on_slurm(run_jobs, folder, slurm or {}, jobs, threads)
        return runner.run(run_jobs, results, "as jobs of SLURM")


def _check_rows(study: Study, names: Iterable[str]) -> None:
    """Refuse rows whose data, teacher or weights are not there, before others are trained."""
    for name in names:
        check_early(study.rows[name])


def _check_launch(
    jobs: int | None, threads: int | None, launcher: str, slurm: Mapping[str, Any] | None
) -> None:
    """Raises `ConfigError` if the runs cannot be launched with these options."""
    if launcher not in LAUNCHERS:
        raise ConfigError(f"--launcher is local or submitit{nearest(launcher, LAUNCHERS)}")
    if slurm and launcher != "submitit":
        raise ConfigError("--slurm is for --launcher submitit")
    for name, number in (("jobs", jobs), ("threads", threads)):
        if number is not None and number < 1:
            raise ConfigError(f"--{name} is 1 or more, not {number}")


def requested_study(
    methods: str | Sequence[str],
    seeds: str | int | Sequence[int],
    recipe: str | Path | None,
    keys: Mapping[str, Any],
) -> Study:
    """Study that the arguments of `compare` describe."""
    file = read(Path(recipe)) if recipe else {}
    rows = parse_rows([methods] if isinstance(methods, str) else methods)
    return plan_study(rows, parse_seeds(seeds), file=file, keys=keys)


def _default_path(study: Study | None) -> Path:
    if study is None:
        raise ConfigError("which study is to be resumed? name its directory")
    recipe = study.rows[study.baseline]
    names = (Path(recipe.data.split(":")[-1]).stem, recipe.model.split("/")[-1])
    return Path("studies") / "-".join(names)


def _merge_studies(
    existing: Study | None, requested: Study | None, path: Path, exit: str | None
) -> Study:
    """Existing study, extended by the requested one; at least one of them is given."""
    study = existing or requested
    if existing and requested:
        study = extend_study(existing, requested, str(path))
    assert study is not None, "a study is either in the directory or requested"
    if exit and exit.isdecimal():
        exit = f"exit{exit}"
    return replace(study, exit=exit or (existing.exit if existing else STUDENT))


class _StudyRunner:
    """Outcomes of a study while its runs are trained, and the files that show them."""

    def __init__(
        self, study: Study, directory: StudyDirectory, callback: ComparisonCallback
    ) -> None:
        self.study, self.directory, self.callback = study, directory, callback
        self.known_warnings: set[str] = set()
        self.outcomes = {cell: self.finished(*cell) for cell in study.cells}

    def open_jobs(self) -> list[RunJob]:
        """Jobs of the runs that are not finished."""
        return [self.directory.job(*cell) for cell, o in self.outcomes.items() if not o.exits]

    def run(
        self, jobs: Sequence[RunJob], results: Iterator[JobResult], launcher: str
    ) -> Comparison:
        """Train the runs, and write tables and page anew after each."""
        num_done = len(self.outcomes) - len(jobs)
        self.callback.on_start(self.study, self.directory.path, num_done, launcher)
        comparison = self.write_outputs()
        for job in jobs:
            self.directory.wait_until_free(job)
        with closing(results):  # type: ignore[type-var]
            for result in results:
                outcome = self.outcome(result)
                self.outcomes[outcome.row, outcome.seed] = outcome
                self.callback.on_run_end(outcome, result.seconds)
                comparison = self.write_outputs()
        return comparison

    def finished(self, row: str, seed: int) -> RunOutcome:
        """Outcome of a run if it is finished, else one without scores."""
        exits = self.directory.exits(self.study, row, seed)
        throughput = self.directory.throughput(row, seed) if exits else None
        return RunOutcome(row, seed, exits, throughput=throughput)

    def outcome(self, result: JobResult) -> RunOutcome:
        """Outcome of a run whose process has ended; each of its warnings is passed on once."""
        job = result.job
        for warning in re.findall(r"^warning: (.*)$", result.log, re.MULTILINE):
            if warning not in self.known_warnings:
                self.known_warnings.add(warning)
                self.callback.on_message(f"{job.row} s{job.seed}: {warning}")
        outcome = self.finished(job.row, job.seed)
        if outcome.exits:
            return outcome
        return RunOutcome(job.row, job.seed, [], _failure_reason(result), result.code or 1)

    def write_outputs(self) -> Comparison:
        """Write tables and page of the outcomes so far."""
        outcomes = list(self.outcomes.values())
        results = row_results(self.study, outcomes)
        comparison = Comparison(self.directory.path, self.study, outcomes, results)
        directory = RunDirectory(self.directory.path)
        name = self.directory.path.resolve().name
        directory.write("results.csv", results_csv(self.study, outcomes))
        directory.write("summary.csv", summary_csv(results))
        try:
            from .page import page  # imports matplotlib, if it is installed

            directory.write("study.html", page(name, self.study, outcomes, results))
        except MissingExtraError as error:
            self._warn(str(error))
        return comparison

    def _warn(self, sentence: str) -> None:
        """Say a warning once."""
        if sentence not in self.known_warnings:
            self.known_warnings.add(sentence)
            self.callback.on_message(sentence)


def _failure_reason(result: JobResult) -> str:
    """Why a run failed: its own error message if it wrote one."""
    errors = re.findall(r"^error(?: \(process .*?\))?: (.*)$", result.log, re.MULTILINE)
    if errors:
        return str(errors[-1])
    if result.code < 0:
        name = signal.Signals(-result.code).name
        return f"it was ended by {name}, perhaps because the memory was full"
    return f"it ended with exit code {result.code}; see {result.job.run_dir / LOG}"
