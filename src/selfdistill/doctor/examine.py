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
from ..recipe.build import Company, assemble, load_data, make_fabric, train_loader
from ..recipe.schema import Recipe
from ..running import next_free
from ..taps.fx_split import copy_without_hooks
from .cost import Cost, check_disk, existing, measure
from .data import DataReport, look_at_data
from .network import NetworkReport, look_at_network
from .probe import ProbeReport, probe_step
from .teacher import TeacherReport, look_at_teacher

Section = DataReport | NetworkReport | TeacherReport | ProbeReport | Cost


@dataclass(frozen=True)
class Findings:
    """What an examination found."""

    data: DataReport
    network: NetworkReport
    teacher: TeacherReport | None
    probe: ProbeReport
    cost: Cost

    @property
    def warnings(self) -> list[str]:
        """All of them, in order."""
        sections = (self.data, self.network, self.teacher, self.probe, self.cost)
        return [sentence for section in sections if section for sentence in section.warnings]


def examine(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    data: ImageData | None = None,
    model: nn.Module | None = None,
    company: Company | None = None,
    seconds: float = 15.0,
    show: Callable[[Section], None] = lambda section: None,
) -> Findings:
    """Look at what a recipe would train, and train it for a few steps that are thrown away.

    Nothing is written, and modules that are given are copied first. What keeps the training from
    starting is raised as the training would raise it; `show` has then seen what was found before.

    Args:
        recipe: of the run.
        out: where it would lie; None is the next free place in runs/.
        data, model, company: as `run_recipe` takes them.
        seconds: for the measured steps.
        show: is given each part of the findings when it is known.
    """
    place = Path(out) if out is not None else next_free(recipe)
    _check_place(place)
    make_fabric(recipe)  # all devices must be there, of which one is used
    fabric = make_fabric(recipe.model_copy(update={"devices": 1, "nodes": 1}))
    data = data or load_data(recipe)
    show(images := look_at_data(data))
    with torch.random.fork_rng():
        parts = assemble(recipe, data=data, model=_own(model), company=_own_company(company))
        batches = train_loader(parts.recipe, data, parts.method, _first_of(recipe, fabric))
        show(network := look_at_network(parts))
        if teacher := look_at_teacher(parts, fabric):
            show(teacher)
        show(probe := probe_step(parts, fabric, next(batches.epoch(0))[0]))
        show(cost := measure(parts, fabric, batches, place, seconds=seconds))
    check_disk(cost, place)
    return Findings(images, network, teacher, probe, cost)


def _check_place(place: Path) -> None:
    RunDirectory(place).check_free()
    above = existing(place)
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ResourceError(f"the run directory {place} cannot be written; choose another --out")


def _own(network: nn.Module | None) -> Any:
    return None if network is None else copy_without_hooks(network)


def _own_company(company: Company | None) -> Company:
    company = company or Company()
    return Company(_own(company.teacher), [_own(peer) for peer in company.peers])


def _first_of(recipe: Recipe, fabric: Fabric) -> Fabric:
    """What a loader asks of the first of all processes, whether or not they run."""
    world = recipe.devices * recipe.nodes
    first = SimpleNamespace(world_size=world, global_rank=0, device=fabric.device)
    return cast(Fabric, first)
