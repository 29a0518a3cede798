import json
import os
from pathlib import Path

import pytest

import selfdistill
from selfdistill.core import ArtifactError, ConfigError, ResourceError, RunBusyError
from selfdistill.core.machine import environment
from selfdistill.engine.run_directory import RUN_FORMAT, RunDirectory
from selfdistill.tracking import left_by_tracker


@pytest.fixture
def directory(tmp_path):
    return RunDirectory(tmp_path / "run")


def begun(directory: RunDirectory) -> RunDirectory:
    with directory.held():
        directory.begin("seed = 0\n")
    return directory


def test_second_holder_is_refused(directory):
    second = RunDirectory(directory.path).held()
    with directory.held(), pytest.raises(RunBusyError, match="another process"), second:
        pass


def test_free_again_when_the_holder_is_done(directory):
    for _ in range(2):
        with RunDirectory(directory.path).held():
            pass


def test_free_again_while_the_holders_error_is_still_looked_at(directory):
    with pytest.raises(KeyError) as kept, directory.held():  # noqa: F841  the traceback stays alive
        raise KeyError
    with RunDirectory(directory.path).held():
        pass


def test_a_run_is_never_begun_twice(directory):
    begun(directory)
    with pytest.raises(RunBusyError, match="--resume"):
        directory.begin("seed = 1\n")
    assert directory.recipe() == "seed = 0\n"


@pytest.mark.parametrize("name", ["report.html", "data.json", "roses/1.png", "checkpoints/a.pt"])
def test_what_else_lies_in_a_directory_is_not_written_over(directory, name):
    file = directory.path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    with pytest.raises(RunBusyError, match=f"{name.split('/')[0]} lies in it.*another --out"):
        directory.check_free()
    with pytest.raises(RunBusyError, match="lies in it"):
        selfdistill.train(out=directory.path, quiet=True)
    assert file.read_text() == "mine"
    left = {path for path in directory.path.rglob("*") if path.is_file()}
    assert left == {file}  # no lock either


def test_logs_and_the_beginning_of_a_killed_run_are_in_nobodys_way(directory):
    directory.path.mkdir(parents=True, exist_ok=True)
    (directory.path / "log.txt").touch()
    (directory.path / ".report.draft").touch()
    directory.check_free()
    with directory.held():
        directory.begin("first", {"data.json": "{}"})
    (directory.path / "recipe.toml").unlink()  # as if it had been killed before
    directory.check_free()
    (directory.path / "wandb").mkdir()
    with pytest.raises(RunBusyError, match="wandb lies in it"):
        directory.check_free()
    directory.check_free(*left_by_tracker("wandb"))
    with directory.held():
        directory.begin("second", {"data.json": "{}"})
    assert directory.recipe() == "second"


def test_exit_code_of_a_busy_directory():
    assert RunBusyError.exit_code == 3


def test_no_run_is_told(directory):
    with pytest.raises(ConfigError, match="holds no run"):
        directory.recipe()


def test_path_that_is_a_file_is_a_resource_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError), RunDirectory(tmp_path / "file" / "run").held():
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_a_resource_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError), RunDirectory(tmp_path / "run").held():
        pass
    tmp_path.chmod(0o700)


def test_environment_is_plain_json(directory):
    begun(directory)
    entries = json.loads((directory.path / "environment.json").read_text())
    assert entries.keys() == {"format", *environment()}
    assert entries == directory.environment()
    assert entries["packages"]["torch"]


def test_metrics_come_back_in_order(directory):
    begun(directory)
    entries = [{"kind": "step", "step": i, "x": 0.1 * i} for i in range(5)]
    for entry in entries:
        directory.log(entry)
    assert directory.metrics() == entries


def test_no_metrics_yet(directory):
    assert directory.metrics() == []


def test_rewind_drops_what_will_come_again(directory):
    begun(directory)
    for i in range(1, 5):
        directory.log({"kind": "step", "step": i})
    directory.log({"kind": "final", "step": 2})
    directory.rewind(2)
    assert directory.metrics() == [{"kind": "step", "step": 1}, {"kind": "step", "step": 2}]


@pytest.mark.parametrize("torn", ['{"kind": "st', '{"kind": "step", "step": 3', "\0\0\0\0", "{"])
def test_torn_line_is_dropped(directory, torn):
    begun(directory)
    directory.log({"kind": "step", "step": 1})
    with directory.metrics_file.open("a") as stream:
        stream.write(torn)
    assert directory.metrics() == [{"kind": "step", "step": 1}]
    directory.rewind(1)
    directory.log({"kind": "step", "step": 2})
    assert [e["step"] for e in directory.metrics()] == [1, 2]
    assert [json.loads(line) for line in directory.metrics_file.read_text().splitlines()]


def test_line_torn_inside_a_letter_is_dropped(directory):
    begun(directory)
    directory.log({"kind": "step", "step": 1})
    with directory.metrics_file.open("ab") as stream:
        stream.write('{"kind": "é'.encode()[:-1])
    assert directory.metrics() == [{"kind": "step", "step": 1}]


def test_a_logged_line_is_on_the_disk_before_the_next_step(directory, monkeypatch):
    begun(directory)
    synced = []

    def sync(descriptor):
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).read_text())

    monkeypatch.setattr(os, "fsync", sync)
    directory.log({"kind": "step", "step": 1})
    assert synced == [directory.metrics_file.read_text()]
    assert json.loads(synced[0]) == {"kind": "step", "step": 1}


def test_write_is_all_or_nothing(directory, monkeypatch):
    begun(directory)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        directory.write("recipe.toml", "half")
    assert directory.recipe() == "seed = 0\n"
    assert not [p.name for p in directory.path.iterdir() if p.name.startswith(".recipe")]


@pytest.mark.parametrize("number", [None, RUN_FORMAT - 1, RUN_FORMAT + 1])
def test_a_run_of_another_format_is_refused(directory, number):
    begun(directory)
    description = directory.environment()
    description.pop("format")
    description |= {"format": number} if number else {}
    directory.write("environment.json", json.dumps(description))
    with pytest.raises(ArtifactError, match="was made by another version of selfdistill"):
        directory.recipe()


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_an_environment_that_is_not_json_is_named(directory, text):
    begun(directory)
    directory.write("environment.json", text)
    with pytest.raises(ArtifactError, match=r"environment\.json"):
        directory.recipe()
