"""Diagnosis of a run before it starts: data, network, teacher, first step and training cost."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from .. import methods as _all  # noqa: F401  importing them is what registers them
from ..core import ResourceError, check_kind
from ..data import ImageData
from ..engine.optimizer import schedule_notes
from ..engine.run_directory import RunDirectory
from ..recipe.build_run import build_run, run_input
from ..recipe.loaders import train_loader
from ..recipe.machine_choices import check_precision
from ..recipe.make_fabric import decide_precision, make_fabric
from ..recipe.merge import merge_keys
from ..recipe.presets import with_preset
from ..recipe.schema import Recipe, parse, read
from ..recipe.unread_keys import unread_notes
from ..runs.arguments import training_arguments
from ..runs.paths import unique_run_dir
from ..taps.fx_split import copy_without_hooks
from ..tracking import left_by_tracker
from .data import DataReport, check_data
from .first_step import FirstStepReport, profile_first_step
from .network import NetworkReport, check_network
from .teacher import TeacherReport, check_teacher
from .training_cost import TrainingCost, check_disk, measure_training_cost, nearest_existing

ReportSection = DataReport | NetworkReport | TeacherReport | FirstStepReport | TrainingCost


@dataclass(frozen=True)
class DiagnosticReport:
    """Reports on all parts of a run; `teacher` is None where there is none."""

    data: DataReport
    network: NetworkReport
    teacher: TeacherReport | None
    first_step: FirstStepReport
    cost: TrainingCost

    @property
    def sections(self) -> list[ReportSection]:
        """The reports in the order in which they are made."""
        sections = (self.data, self.network, self.teacher, self.first_step, self.cost)
        return [section for section in sections if section]

    @property
    def warnings(self) -> list[str]:
        """Warnings of all sections."""
        return [warning for section in self.sections for warning in section.warnings]


class DiagnosisCallback:
    """Events of a diagnosis; a subclass overrides those it needs."""

    def on_section(self, section: ReportSection) -> None:
        """After a section of the report is made."""


def diagnose(
    recipe: Recipe | str | Path | None = None,
    *,
    model: str | nn.Module | None = None,
    data: str | ImageData | None = None,
    teacher: str | Path | nn.Module | None = None,
    peers: str | nn.Module | Sequence[str | nn.Module] = (),
    out: str | Path | None = None,
    seconds: float = 15.0,
    callback: DiagnosisCallback | None = None,
    **keys: Any,
) -> DiagnosticReport:
    """Check what `train` with the same arguments would train, and take a few steps of it.

    The steps are discarded, nothing is written, and modules that are given are copied first. An
    error that would keep the training from starting is raised as the training would raise it; the
    callback has then seen the sections before it.

    Args:
        recipe: a recipe, or a TOML file to start from.
        model, data, teacher, peers: as for `train`.
        out: directory of the run; None takes the next free one in runs/.
        seconds: limit for the measured steps.
        callback: is told each section when it is made.
        keys: any key of a recipe, and the method's own options by their names.

    Examples:
        >>> report = diagnose(method="muse", data="folder:flowers")  # doctest: +SKIP
        >>> report.warnings, report.cost.speed.run  # doctest: +SKIP
    """
    given = training_arguments(keys, model, data, teacher, peers)
    recipe = _resolve_recipe(recipe, given.keys)
    run_dir = Path(out) if out is not None else unique_run_dir(recipe)
    _check_run_dir(run_dir, recipe)
    make_fabric(recipe)  # raises if a device is missing; only one of them is used
    fabric = make_fabric(recipe.model_copy(update={"devices": 1, "num_nodes": 1}))
    callback = callback or DiagnosisCallback()
    check_kind("callback", callback, DiagnosisCallback, "an object of a DiagnosisCallback's class")
    for note in (*schedule_notes(recipe), *unread_notes(recipe)):
        warnings.warn(note, stacklevel=2)
    inputs = run_input(recipe, data=given.data, model=given.model)
    data_report = check_data(inputs.data)
    callback.on_section(data_report)
    with torch.random.fork_rng():
        components = build_run(
            recipe,
            inputs,
            model=_copy(given.model),
            teacher=_copy(given.teacher),
            peers=[_copy(peer) for peer in given.peers],
        )
        check_precision(recipe, components.method, components.task.example)
        recipe = components.recipe
        decide_precision(fabric, recipe)
        batches = train_loader(
            recipe, inputs.data, components.method, _first_process(recipe, fabric)
        )
        network_report = check_network(components)
        callback.on_section(network_report)
        teacher_report = check_teacher(components, fabric, batches)
        if teacher_report:
            callback.on_section(teacher_report)
        first_step = profile_first_step(components, fabric, next(batches.epoch(0))[0])
        callback.on_section(first_step)
        cost = measure_training_cost(components, fabric, batches, run_dir, seconds=seconds)
        callback.on_section(cost)
    check_disk(cost, run_dir)
    return DiagnosticReport(data_report, network_report, teacher_report, first_step, cost)


def _resolve_recipe(recipe: Recipe | str | Path | None, keys: Mapping[str, Any]) -> Recipe:
    """Recipe with keys put over it."""
    if isinstance(recipe, Recipe):
        return parse(merge_keys(recipe.model_dump(), keys)) if keys else recipe
    return parse(with_preset(read(Path(recipe)) if recipe else {}, keys))


def _check_run_dir(run_dir: Path, recipe: Recipe) -> None:
    """Raises `RunBusyError` or `ResourceError` if a run cannot be written there."""
    RunDirectory(run_dir).check_free(*left_by_tracker(recipe.track))
    folder = nearest_existing(run_dir)
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ResourceError(f"the run directory {run_dir} cannot be written; choose another --out")


def _copy(network: nn.Module | None) -> Any:
    return None if network is None else copy_without_hooks(network)


def _first_process(recipe: Recipe, fabric: Fabric) -> Fabric:
    """The attributes that a loader reads of the first of all processes, whether or not they run."""
    world_size = recipe.devices * recipe.num_nodes
    process = SimpleNamespace(world_size=world_size, global_rank=0, device=fabric.device)
    return cast(Fabric, process)
