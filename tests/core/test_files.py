"""What is written appears at once and complete, or not at all."""

import os
import subprocess

import pytest

from selfdistill.core import (
    ArtifactError,
    ResourceError,
    RunBusyError,
    atomic_directory,
    atomic_file,
    read_regular,
    write_atomically,
)
from selfdistill.engine.run_directory import RunDirectory


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    assert write_atomically(tmp_path / "a.txt", "é\r\n").read_bytes() == "é\r\n".encode()
    assert write_atomically(tmp_path / "a.txt", b"\0\1").read_bytes() == b"\0\1"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_whose_block_fails_stays_as_it_was(tmp_path):
    path = write_atomically(tmp_path / "a.txt", "before")

    def fails():
        with atomic_file(path) as draft:
            draft.write_text("half")
            raise ArtifactError("not this")

    with pytest.raises(ArtifactError, match="not this"):
        fails()
    assert path.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_directory_appears_with_all_its_files(tmp_path):
    with atomic_directory(tmp_path / "deep" / "folder") as draft:
        (draft / "a").write_text("a")
        assert not (tmp_path / "deep" / "folder").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["folder"]
    assert (tmp_path / "deep" / "folder" / "a").read_text() == "a"


@pytest.mark.parametrize("replace", [True, False])
def test_a_directory_replaces_another_only_when_told(tmp_path, replace):
    path = tmp_path / "folder"
    with atomic_directory(path) as draft:
        (draft / "old").touch()
    try:
        with atomic_directory(path, replace=replace) as draft:
            (draft / "new").touch()
    except RunBusyError:
        assert not replace
    assert [file.name for file in path.iterdir()] == ["new" if replace else "old"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"a\.txt could not be written: No space left"):
        write_atomically(tmp_path / "a.txt", "x")
    folder = atomic_directory(tmp_path / "folder")
    with pytest.raises(ResourceError, match="folder could not be written"), folder as draft:
        (draft / "a").touch()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_drafts_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path, kind):
    with atomic_file(tmp_path / "a") as draft:
        draft.touch()
        prefix = draft.name.removesuffix(str(os.getpid()))
    (tmp_path / "a").unlink()
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = [prefix + str(dead.pid), prefix + str(os.getppid()), prefix + "x", ".b" + prefix[2:]]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    if kind == "file":
        write_atomically(tmp_path / "a", "x")
    else:
        with atomic_directory(tmp_path / "a"):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"a", *names[1:]}


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_a_pipe_is_not_read(tmp_path, time_limit, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with time_limit(20), pytest.raises(ArtifactError, match="no regular file"):
        read_regular(tmp_path / name)


@pytest.mark.parametrize("file", ["recipe.toml", "environment.json", "metrics.jsonl"])
def test_a_run_whose_file_is_a_pipe_is_refused(tmp_path, time_limit, file):
    (tmp_path / "recipe.toml").write_text("seed = 1\r\n")
    run = RunDirectory(tmp_path)
    assert run.recipe() == "seed = 1\n"
    (tmp_path / file).unlink(missing_ok=True)
    os.mkfifo(tmp_path / file)
    with time_limit(20), pytest.raises(ArtifactError, match=file):
        run.metrics() if file == "metrics.jsonl" else run.recipe()
