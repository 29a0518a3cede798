"""All that can be known of a run before it starts."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from ..core import ResourceError
from ..data import ImageData
from ..engine.run_directory import RunDirectory
from ..recipe.build_run import (
    Companions,
    build_run,
    load_data,
    make_fabric,
    train_loader,
)
from ..recipe.schema import Recipe
from ..runs.training import unique_run_dir
from ..taps.fx_split import copy_without_hooks
from .data import DataReport, check_data
from .first_step import FirstStepReport, profile_first_step
from .network import NetworkReport, check_network
from .teacher import TeacherReport, check_teacher
from .training_cost import (
    TrainingCost,
    check_disk,
    existing,
    measure_training_cost,
)

ReportSection = DataReport | NetworkReport | TeacherReport | FirstStepReport | TrainingCost


@dataclass(frozen=True)
class DiagnosticReport:
    """What an examination found."""

    data: DataReport
    network: NetworkReport
    teacher: TeacherReport | None
    probe: FirstStepReport
    cost: TrainingCost

    @property
    def warnings(self) -> list[str]:
        """All of them, in order."""
        sections = (self.data, self.network, self.teacher, self.probe, self.cost)
        return [sentence for section in sections if section for sentence in section.warnings]


def diagnose(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    data: ImageData | None = None,
    model: nn.Module | None = None,
    company: Companions | None = None,
    seconds: float = 15.0,
    show: Callable[[ReportSection], None] = lambda section: None,
) -> DiagnosticReport:
    """Look at what a recipe would train, and train it for a few steps that are thrown away.

    Nothing is written, and modules that are given are copied first. What keeps the training from
    starting is raised as the training would raise it; `show` has then seen what was found before.

    Args:
        recipe: of the run.
        out: where it would lie; None is the next free place in runs/.
        data, model, company: as `train_recipe` takes them.
        seconds: for the measured steps.
        show: is given each part of the findings when it is known.
    """
    place = Path(out) if out is not None else unique_run_dir(recipe)
    _check_place(place)
    make_fabric(recipe)  # all devices must be there, of which one is used
    fabric = make_fabric(recipe.model_copy(update={"devices": 1, "num_nodes": 1}))
    data = data or load_data(recipe)
    show(images := check_data(data))
    with torch.random.fork_rng():
        parts = build_run(recipe, data=data, model=_own(model), company=_own_company(company))
        batches = train_loader(parts.recipe, data, parts.method, _first_of(recipe, fabric))
        show(network := check_network(parts))
        if teacher := check_teacher(parts, fabric):
            show(teacher)
        show(probe := profile_first_step(parts, fabric, next(batches.epoch(0))[0]))
        show(cost := measure_training_cost(parts, fabric, batches, place, seconds=seconds))
    check_disk(cost, place)
    return DiagnosticReport(images, network, teacher, probe, cost)


def _check_place(place: Path) -> None:
    RunDirectory(place).check_free()
    above = existing(place)
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ResourceError(f"the run directory {place} cannot be written; choose another --out")


def _own(network: nn.Module | None) -> Any:
    return None if network is None else copy_without_hooks(network)


def _own_company(company: Companions | None) -> Companions:
    company = company or Companions()
    return Companions(_own(company.teacher), [_own(peer) for peer in company.peers])


def _first_of(recipe: Recipe, fabric: Fabric) -> Fabric:
    """What a loader asks of the first of all processes, whether or not they run."""
    world = recipe.devices * recipe.num_nodes
    first = SimpleNamespace(world_size=world, global_rank=0, device=fabric.device)
    return cast(Fabric, first)
