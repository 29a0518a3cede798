"""What launchers say of the processes that they started, in the forms that they say it in."""

import pytest
from lightning_fabric.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from selfdistill.core import ConfigError
from selfdistill.recipe.launched_processes import (
    cluster_environment,
    launched_processes,
    with_launched_processes,
)
from selfdistill.recipe.schema import parse

STEP = {"SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """An environment in which no launcher has been; what a test sets is taken away."""
    import os

    before = dict(os.environ)
    for name in before:
        if name.startswith("SLURM") or name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


def launched(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return launched_processes()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"WORLD_SIZE": "2"}, None),  # Lightning's own, which says nothing of the nodes
        ({"WORLD_SIZE": "", "LOCAL_WORLD_SIZE": "2"}, None),
        ({"WORLD_SIZE": "four", "LOCAL_WORLD_SIZE": "0"}, None),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, (1, 1, "torchrun")),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, (4, 2, "torchrun")),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1"}, None),  # its one task starts what it likes
        ({**STEP, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "4"}, (4, 1, "srun")),
        (
            {**STEP, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"},
            (2, 2, "srun"),
        ),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "many"}, None),
        # a script of sbatch that srun did not start, though its job has four tasks
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),
        # torchrun inside a step
        (
            {**STEP, "SLURM_STEP_NUM_TASKS": "2", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"},
            (4, 2, "torchrun"),
        ),
    ],
)
def test_what_launchers_say(monkeypatch, variables, expected):
    assert launched(monkeypatch, variables) == expected


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "5", "LOCAL_WORLD_SIZE": "2"},
        {**STEP, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "3,1"},
        {**STEP, "SLURM_STEP_NUM_TASKS": "5", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1"},
    ],
)
def test_nodes_with_different_numbers_are_refused(monkeypatch, variables):
    with pytest.raises(ConfigError, match="start as many on each"):
        launched(monkeypatch, variables)


def test_a_launchers_number_is_taken(monkeypatch):
    launched(monkeypatch, {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"})
    for keys in ({}, {"devices": 4}, {"devices": 2, "num_nodes": 2}):
        recipe = with_launched_processes(parse({"method": "ce", **keys}))
        assert (recipe.devices, recipe.num_nodes) == (2, 2)
    other = parse({"method": "ce", "devices": 3})
    with pytest.raises(ConfigError, match="torchrun started 4 processes and this run is for 3"):
        with_launched_processes(other)
    assert with_launched_processes(other, resume=True).devices == 2


@pytest.mark.parametrize(
    ("world", "keys", "fits"),
    [("2", {}, False), ("2", {"devices": 3}, False), ("2", {"devices": 2}, True),
     ("4", {"devices": 2, "num_nodes": 2}, True), ("1", {}, True), ("", {}, True)],
)  # fmt: skip
def test_a_launcher_that_says_less_and_a_recipe_agree(monkeypatch, world, keys, fits):
    monkeypatch.setenv("WORLD_SIZE", world)
    recipe = parse({"method": "ce", **keys})
    if fits:
        assert with_launched_processes(recipe) is recipe
        return
    with pytest.raises(ConfigError, match="the launcher started 2 processes"):
        with_launched_processes(recipe)


def test_where_processes_find_each_other(monkeypatch):
    several = parse({"method": "ce", "devices": 2, "num_nodes": 2})
    assert cluster_environment(several) is None
    monkeypatch.setenv("SLURM_JOB_ID", "1234567")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert isinstance(cluster_environment(several), LightningEnvironment)
    step = {**STEP, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
            "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_NTASKS": "16",
            "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}  # fmt: skip
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    environment = cluster_environment(several)
    assert isinstance(environment, SLURMEnvironment)
    environment.validate_settings(2, 2)
    found = environment.world_size(), environment.main_address, environment.main_port
    assert found == (4, "gpu07", 19567)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert isinstance(cluster_environment(several), TorchElasticEnvironment)
    # what one process does alone asks no launcher
    assert isinstance(cluster_environment(parse({"method": "ce"})), LightningEnvironment)
