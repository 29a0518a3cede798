"""Processes that a launcher (torchrun, srun, Ray Train) started, by the variables that it sets."""

import os
import re
from typing import NamedTuple

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from ..core import ConfigError
from .schema import Recipe

_ONE_COUNT = re.compile(r"(\d+)(?:\(x\d+\))?")  # as SLURM writes tasks per node: 4, or 4(x2)


class LaunchedProcesses(NamedTuple):
    """Number of processes on each node, number of nodes, and who started them."""

    devices: int
    num_nodes: int
    launcher: str


def launched_processes() -> LaunchedProcesses | None:
    """What a launcher says it started; None where there is none, or one that does not say.

    torchrun and Ray Train always say. A step of srun says if it has more than one task: one task
    may start processes of its own.

    Raises:
        ConfigError: the nodes have different numbers of processes.
    """
    world, local = (os.environ.get(name, "") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if world.isdecimal() and local.isdecimal() and int(local):
        if int(world) % int(local):
            raise _uneven(f"{local} of {world} processes on this node")
        return LaunchedProcesses(int(local), int(world) // int(local), "torchrun")
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    if not _in_slurm_step() or not tasks.isdecimal() or int(tasks) < 2:
        return None
    per_node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", tasks)
    count = _ONE_COUNT.fullmatch(per_node)
    if count is None or int(tasks) % int(count[1]):
        raise _uneven(f"SLURM_STEP_TASKS_PER_NODE={per_node}")
    return LaunchedProcesses(int(count[1]), int(tasks) // int(count[1]), "srun")


def with_launched_processes(recipe: Recipe, *, resume: bool = False) -> Recipe:
    """The recipe with the number of processes that a launcher started, if there is a launcher.

    A run that goes on takes any number; a new one takes it where its recipe names no other.

    Raises:
        ConfigError: recipe and launcher name different numbers.
    """
    named = recipe.devices * recipe.num_nodes
    if launched := launched_processes():
        total = launched.devices * launched.num_nodes
        if not resume and named not in (1, total):
            raise ConfigError(
                f"{launched.launcher} started {total} processes and this run is for {named}; leave "
                "devices and num_nodes out of options and recipe: the launcher's number is taken"
            )
        keys = {"devices": launched.devices, "num_nodes": launched.num_nodes}
        return recipe.model_copy(update=keys)
    world = os.environ.get("WORLD_SIZE", "")
    if world.isdecimal() and int(world) != named:
        raise ConfigError(
            f"the launcher started {world} processes (WORLD_SIZE) and this run is for "
            f"{recipe.devices} on each of {recipe.num_nodes} nodes; give --devices and --num-nodes "
            f"whose product is {world}, or leave the launcher out"
        )
    return recipe


def cluster_environment(recipe: Recipe) -> ClusterEnvironment | None:
    """Where a run's processes find each other; None is for Lightning to find out.

    Lightning takes a job of SLURM for one that srun started even where a script in it runs a
    single process, and would wait for the other tasks.
    """
    if recipe.devices * recipe.num_nodes == 1:
        return LightningEnvironment()
    launched = launched_processes()
    if launched is None:
        return LightningEnvironment() if "SLURM_JOB_ID" in os.environ else None
    if launched.launcher == "srun":
        _complete_slurm_variables(launched)
        return SLURMEnvironment()
    return TorchElasticEnvironment()


def _complete_slurm_variables(launched: LaunchedProcesses) -> None:
    """Set what Lightning reads to what holds for this step, which may be a part of its job."""
    counts = {
        "SLURM_NTASKS": launched.devices * launched.num_nodes,
        "SLURM_NTASKS_PER_NODE": launched.devices,
        "SLURM_NNODES": launched.num_nodes,
    }
    os.environ.update({name: str(count) for name, count in counts.items()})
    if nodes := os.environ.get("SLURM_STEP_NODELIST"):
        first = SLURMEnvironment.resolve_root_node_address(nodes)
        os.environ.setdefault("MASTER_ADDR", first)


def _in_slurm_step() -> bool:
    return "SLURM_PROCID" in os.environ and "SLURM_STEP_ID" in os.environ


def _uneven(counts: str) -> ConfigError:
    return ConfigError(
        f"the nodes have different numbers of processes ({counts}); start as many on each"
    )
