import hashlib
import itertools
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfdistill.core import ArtifactError, ResourceError, files
from selfdistill.engine import checkpoint
from selfdistill.engine.checkpoint import Checkpoint

STATE = {"epoch": 0, "finished": False, "student": "student.", "meters": {}, "scaler": {},
         "origin": {"recipe.toml": "epochs = 1"}}  # fmt: skip


def make_checkpoint(step: int, tensors=None) -> Checkpoint:
    tensors = tensors or {"model": {"w": torch.full((3,), float(step))}}
    return Checkpoint(tensors, STATE | {"step": step})


def saved(folder, *steps: int, keep: int = 9):
    return [checkpoint.save(folder, make_checkpoint(step), keep=keep) for step in steps]


def test_comes_back_bit_for_bit(tmp_path):
    tensors = {
        "model": {"w": torch.randn(3, 4), "half": torch.randn(3).bfloat16(), "n": torch.tensor(3)},
        "optimizer": {"a.b/slot": torch.randn(2).double()},
        "method": {},
    }
    meters = {"window": {"losses": {"x": (0.1 + 0.2, 3)}, "monitors": {}}}
    state = STATE | {"step": 3, "meters": meters}
    directory = checkpoint.save(tmp_path, Checkpoint(tensors, state))
    loaded = checkpoint.load(directory)
    assert directory.name == "step-000003"
    assert loaded.state == {"format": checkpoint.FORMAT, **state}
    for stem, group in tensors.items():
        assert loaded.tensors[stem].keys() == group.keys()
        for name, value in group.items():
            assert loaded.tensors[stem][name].dtype == value.dtype
            assert torch.equal(loaded.tensors[stem][name], value)


def test_views_of_one_storage_are_saved_each(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    views = {"row": base[0], "column": base[:, 0], "turned": base.T, "whole": base}
    loaded = checkpoint.load(checkpoint.save(tmp_path, make_checkpoint(1, {"model": views})))
    assert all(torch.equal(loaded.tensors["model"][name], view) for name, view in views.items())


def test_holds_no_pickle_and_all_sums_are_right(tmp_path):
    (directory,) = saved(tmp_path, 1)
    names = {file.name for file in directory.iterdir()}
    assert names == {"model.safetensors", "state.json", "manifest.json"}
    sums = json.loads((directory / "manifest.json").read_text())
    assert sums.keys() == names - {"manifest.json"}
    for name, digest in sums.items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest


def test_newest_goes_by_number(tmp_path):
    saved(tmp_path, 999_999, 1_000_000, 5)
    assert checkpoint.newest(tmp_path).state["step"] == 1_000_000


def test_nothing_there_is_no_fault(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_only_two_are_kept(tmp_path):
    saved(tmp_path, 1, 2, 3, 4, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000003", "step-000004"]


def flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def cut(file):
    file.write_bytes(file.read_bytes()[:-5])


def empty(file):
    file.write_bytes(b"")


def remove(file):
    file.unlink()


DAMAGES = list(itertools.product([flip, cut, empty, remove],
                                 ["model.safetensors", "state.json", "manifest.json"]))  # fmt: skip


@pytest.mark.parametrize(("damage", "name"), DAMAGES)
def test_damage_falls_back_with_a_warning(tmp_path, damage, name):
    _, last = saved(tmp_path, 1, 2)
    damage(last / name)
    with pytest.raises(ArtifactError):
        checkpoint.load(last)
    with pytest.warns(UserWarning, match="step-000001 is used instead") as warned:
        loaded = checkpoint.newest(tmp_path)
    assert len(warned) == 1
    assert "step-000002" in str(warned[0].message)
    assert loaded.state["step"] == 1


def test_all_damaged_is_an_error(tmp_path):
    for directory in saved(tmp_path, 1, 2):
        flip(directory / "model.safetensors")
    with pytest.raises(ArtifactError, match="no other checkpoint"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize(
    "manifest", ["{}", "[]", "null", "3", '{"state.json": 3}', '{"model.safetensors": "00"}']
)
def test_manifest_that_vouches_for_nothing_is_refused(tmp_path, manifest):
    (directory,) = saved(tmp_path, 1)
    (directory / "manifest.json").write_text(manifest)
    with pytest.raises(ArtifactError):
        checkpoint.load(directory)


def test_file_that_the_manifest_does_not_know_is_not_read(tmp_path):
    first, second = saved(tmp_path, 1, 2)
    shutil.copy(second / "model.safetensors", first / "method.safetensors")
    try:
        loaded = checkpoint.load(first)
    except ArtifactError:
        return
    assert loaded.tensors.keys() == {"model"}


def resealed(directory, **files: bytes):
    """Change files and make the manifest agree."""
    for name, data in files.items():
        (directory / name.replace("__", ".")).write_bytes(data)
    sums = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in directory.iterdir()
            if f.name != "manifest.json"}  # fmt: skip
    (directory / "manifest.json").write_text(json.dumps(sums))


def test_newer_format_is_refused(tmp_path):
    (directory,) = saved(tmp_path, 1)
    newer = {**STATE, "format": checkpoint.FORMAT + 1, "step": 1}
    resealed(directory, state__json=json.dumps(newer).encode())
    with pytest.raises(ArtifactError, match="newer version"):
        checkpoint.load(directory)


@pytest.mark.parametrize("state", ["[]", "3", "{}", '{"step": 1}', '{"format": "x", "step": 1}'])
def test_state_of_another_form_is_refused(tmp_path, state):
    (directory,) = saved(tmp_path, 1)
    resealed(directory, state__json=state.encode())
    with pytest.raises(ArtifactError):
        checkpoint.load(directory)


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1}, {"step": 1.5}, {"step": True}, {"step": "1"}, {"epoch": None},
        {"finished": 1}, {"finished": "yes"}, {"student": 3}, {"scaler": []}, {"meters": 3},
        {"meters": {"year": {}}}, {"meters": {"epoch": {"losses": {"x": [1.0]}}}},
        {"meters": {"epoch": {"losses": {"x": [1.0, 0]}}}}, {"origin": {"recipe.toml": 3}},
        {"origin": None}, {"more": 1},
    ],
)  # fmt: skip
def test_a_state_with_a_wrong_value_is_refused_by_its_name(tmp_path, change):
    (directory,) = saved(tmp_path, 1)
    state = json.loads((directory / "state.json").read_text())
    resealed(directory, state__json=json.dumps(state | change).encode())
    with pytest.raises(ArtifactError, match=rf"no state of a training: {next(iter(change))}"):
        checkpoint.load(directory)


@pytest.mark.parametrize("key", STATE)
def test_a_state_that_lacks_a_value_is_refused_by_its_name(tmp_path, key):
    (directory,) = saved(tmp_path, 1)
    state = json.loads((directory / "state.json").read_text())
    del state[key]
    resealed(directory, state__json=json.dumps(state).encode())
    with pytest.raises(ArtifactError, match=rf"{key}: field required"):
        checkpoint.load(directory)


@pytest.mark.parametrize(
    "name", ["/dev/zero", "../other.txt", "sub/model.safetensors", "notes.txt", "..", ""]
)
def test_a_manifest_names_only_files_of_a_checkpoint(tmp_path, name):
    (directory,) = saved(tmp_path, 1)
    sums = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps({**sums, name: "00"}))
    with pytest.raises(ArtifactError, match="no checkpoint's file"):
        checkpoint.load(directory)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p)])
def test_what_is_no_regular_file_is_not_read(tmp_path, name, make):
    (directory,) = saved(tmp_path, 1)
    (directory / name).unlink()
    make(directory / name)
    with pytest.raises(ArtifactError, match="no regular file"):
        checkpoint.load(directory)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_rights_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        (directory,) = saved(tmp_path, 1)
    finally:
        os.umask(before)
    rights = {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert set(rights.values()) == {0o666 & ~mask}, rights


@pytest.mark.parametrize("name", ["listdir", "read_bytes"])
def test_what_may_not_be_read_is_a_resource_error_and_no_missing_checkpoint(
    tmp_path, monkeypatch, name
):
    saved(tmp_path, 1, 2)

    def forbidden(path, *rest):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os if name == "listdir" else Path, name, forbidden)
    with pytest.raises(ResourceError, match=f"{tmp_path}.* cannot be read: permission denied"):
        checkpoint.newest(tmp_path)


def test_a_corrupt_later_one_is_deleted_before_a_sound_earlier_one(tmp_path):
    *_, corrupt = saved(tmp_path, 1, 2, 9)
    flip(corrupt / "model.safetensors")
    saved(tmp_path, 3, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000002", "step-000003"]


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def zipped(bomb, path) -> bytes:
    torch.save({"w": bomb}, path)
    return path.read_bytes()


@pytest.mark.parametrize("start", [b"\x80", b"P"])
def test_a_header_whose_length_looks_like_a_pickle_is_none(tmp_path, start):
    for length in range(600):
        directory = checkpoint.save(
            tmp_path, make_checkpoint(1, {"ema": {"w" * length: torch.ones(1)}})
        )
        if (directory / "ema.safetensors").read_bytes().startswith(start):
            assert checkpoint.load(directory).tensors["ema"]["w" * length] == 1
            return
    raise AssertionError("no such header was met")


@pytest.mark.parametrize("kind", ["pickle", "old pickle", "zip"])
@pytest.mark.parametrize("name", ["model__safetensors", "state__json", "manifest.json"])
def test_pickle_is_refused_and_never_run(tmp_path, kind, name):
    (directory,) = saved(tmp_path / "run", 1)
    bomb = Bomb(tmp_path / "exploded")
    data = {
        "pickle": lambda: pickle.dumps(bomb),
        "old pickle": lambda: pickle.dumps(bomb, protocol=0),
        "zip": lambda: zipped(bomb, tmp_path / "zipped.pt"),
    }[kind]()
    if name == "manifest.json":
        (directory / name).write_bytes(data)
    else:
        resealed(directory, **{name: data})
    with pytest.raises(ArtifactError):
        checkpoint.load(directory)
    with pytest.raises(ArtifactError):
        checkpoint.newest(tmp_path / "run")
    assert not (tmp_path / "exploded").exists()


def test_read_tensors_refuses_a_pickle(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ArtifactError, match="pickle"):
        checkpoint.read_tensors(file)
    assert not (tmp_path / "exploded").exists()


def test_read_tensors_of_nothing_is_a_sentence(tmp_path):
    with pytest.raises(ArtifactError):
        checkpoint.read_tensors(tmp_path / "absent.safetensors")


def dying(monkeypatch, module, name: str, count: int):
    """The `count`-th call of a function of the module fails as a kill would: at once."""
    calls = itertools.count(1)
    before = getattr(module, name)

    def die(*args, **kwargs):
        if next(calls) == count:
            raise KeyboardInterrupt
        return before(*args, **kwargs)

    monkeypatch.setattr(module, name, die)


@pytest.mark.parametrize(
    ("module", "name"), [(checkpoint, "save_file"), (checkpoint, "_digest"), (files, "sync")]
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_interrupted_save_leaves_no_checkpoint(tmp_path, monkeypatch, module, name, count):
    saved(tmp_path, 1)
    with monkeypatch.context() as patch:
        dying(patch, module, name, count)
        groups = {name: {"w": torch.ones(2)} for name in checkpoint.GROUPS[:3]}
        large = make_checkpoint(2, groups)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, large)
    assert checkpoint.newest(tmp_path).state["step"] == 1
    assert all(p.name.startswith(".") for p in tmp_path.iterdir() if p.name != "step-000001")
    saved(tmp_path, 2, keep=2)
    assert checkpoint.newest(tmp_path).state["step"] == 2


def test_full_disk_is_a_resource_error_and_leaves_the_earlier_ones(tmp_path, monkeypatch):
    saved(tmp_path, 1)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(ResourceError, match="No space left"):
            checkpoint.save(tmp_path, make_checkpoint(2))
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def test_folder_that_is_a_file_is_a_resource_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        checkpoint.save(tmp_path / "file", make_checkpoint(1))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 3))
@settings(max_examples=12, deadline=None)
def test_a_save_never_deletes_what_it_wrote(tmp_path_factory, steps, keep):
    folder = tmp_path_factory.mktemp("any-order")
    for step in steps:
        assert (
            checkpoint.load(checkpoint.save(folder, make_checkpoint(step), keep=keep)).state["step"]
            == step
        )


def test_foreign_folder_beside_the_checkpoints_is_passed_over(tmp_path):
    saved(tmp_path, 1)
    shutil.copytree(tmp_path / "step-000001", tmp_path / "step-000001.bak")
    (tmp_path / "step-best").mkdir()
    assert checkpoint.newest(tmp_path).state["step"] == 1
    saved(tmp_path, 2, keep=2)
    assert (tmp_path / "step-best").exists()


def test_what_a_killed_save_did_not_delete_goes_when_the_run_goes_on(tmp_path):
    saved(tmp_path, 1, 2, 3, 9)
    (tmp_path / "step-000001" / "model.safetensors").unlink()
    (tmp_path / ".step-000003.999999").mkdir()
    checkpoint.prune(tmp_path, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-00000{i}" for i in (2, 3, 9)]


def test_a_checkpoint_under_the_name_of_another_is_refused(tmp_path):
    (directory,) = saved(tmp_path, 1)
    with pytest.raises(ArtifactError, match="of another step"):
        checkpoint.load(directory.rename(tmp_path / "step-000007"))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value):
    checkpoint.save(tmp_path, make_checkpoint(1, {"ema": {"w": torch.tensor([1.0, value])}}))
    with pytest.raises(ArtifactError, match="in w that are not finite"):
        checkpoint.newest(tmp_path)


def test_drafts_of_killed_processes_are_swept_away(tmp_path):
    (tmp_path / ".step-000001.999999").mkdir()
    (tmp_path / ".step-000001.999999" / "model.safetensors").write_bytes(b"half")
    saved(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000002"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_step_that_is_saved_again_is_there_all_the_time(tmp_path, renames):
    """A process that is killed before, between or behind the two renames."""
    saved(tmp_path, 5)
    process = os.fork()
    if not process:
        rename, count = Path.rename, itertools.count()

        def dying_rename(path, target):
            if next(count) == renames:
                os._exit(9)
            return rename(path, target)

        Path.rename = dying_rename
        sync = files.sync
        files.sync = lambda path: os._exit(9) if path == tmp_path else sync(path)
        checkpoint.save(tmp_path, make_checkpoint(5, {"model": {"w": torch.full((3,), 6.0)}}))
        os._exit(0)
    assert os.waitpid(process, 0)[1] >> 8 == 9
    newest = checkpoint.newest(tmp_path)
    assert newest.state["step"] == checkpoint.newest_step(tmp_path) == 5
    assert newest.tensors["model"]["w"][0] == (6 if renames == 2 else 5)
    saved(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000005"]
