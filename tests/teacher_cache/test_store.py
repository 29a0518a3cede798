"""What is stored survives writers that die, that are two, and disks that are full."""

import errno
import os
from pathlib import Path

import pytest
import torch

from selfdistill.core import ResourceError
from selfdistill.teacher_cache import OutputStore
from selfdistill.teacher_cache.store import DESCRIPTION_FILE

SCORES = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
DESCRIPTION = {"teacher": "a", "seed": 0}


def store(root: Path, **other: object) -> OutputStore:
    return OutputStore(root, {**DESCRIPTION, **other}, len(SCORES))


def keep(view, samples: list[int], scores: torch.Tensor = SCORES) -> None:
    index = torch.tensor(samples)
    view.add(index, {"scores": scores[index]})


def known(view) -> list[int]:
    return (view.places >= 0).nonzero()[:, 0].tolist()


def shards(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.safetensors"))


def test_rows_of_several_files_come_back_in_the_order_asked_for(tmp_path):
    view = store(tmp_path).open(2, 0)
    for samples in ([3, 1, 4], [5, 9, 2, 6], [0]):
        keep(view, samples)
        view.flush()
    assert len(shards(tmp_path)) == 3
    view = store(tmp_path).open(2, 0)
    for samples in ([9, 3, 0, 2], [5, 6], [0]):
        assert torch.equal(view.gather(torch.tensor(samples))["scores"], SCORES[samples])


def test_views_and_epochs_are_apart(tmp_path):
    there = store(tmp_path)
    view = there.open(0, 0)
    keep(view, [1])
    view.flush()
    assert known(there.open(0, 0)) == [1]
    assert not known(there.open(0, 1))
    assert not known(there.open(1, 0))


def test_another_description_is_another_folder(tmp_path):
    folders = {
        store(tmp_path).folder,
        store(tmp_path, teacher="b").folder,
        store(tmp_path, seed=1).folder,
    }
    assert len(folders) == 3
    assert '"teacher": "b"' in (store(tmp_path, teacher="b").folder / DESCRIPTION_FILE).read_text()


def test_what_is_not_flushed_is_not_read(tmp_path):
    view = store(tmp_path).open(0, 0)
    keep(view, [1, 2])
    assert not known(view)
    assert not shards(tmp_path)
    view.flush()
    assert known(view) == [1, 2]
    view.flush()
    assert len(shards(tmp_path)) == 1


def test_two_writers_at_once(tmp_path):
    first, second = (store(tmp_path).open(0, 0) for _ in range(2))
    keep(first, [0, 1, 2])
    keep(second, [2, 3], SCORES + 1)
    first.flush()
    second.flush()
    view = store(tmp_path).open(0, 0)
    rows = view.gather(torch.tensor([0, 1, 2, 3]))["scores"]
    assert torch.equal(rows[:3], SCORES[:3])  # the first to write it
    assert torch.equal(rows[3], SCORES[3] + 1)
    assert sum(len(shard.samples) for shard in view.shards.values()) == 4  # none twice
    second.flush()
    assert known(second) == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty"])
def test_a_damaged_file_is_told_and_removed(tmp_path, damage):
    view = store(tmp_path).open(0, 0)
    keep(view, [0, 1, 2])
    view.flush()
    (path,) = shards(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    torn = {"torn": content[: len(content) // 2], "flipped": content, "empty": b""}
    path.write_bytes(bytes(torn[damage]))
    with pytest.warns(UserWarning, match="is damaged and was removed; the outputs in it"):
        view = store(tmp_path).open(0, 0)
    assert not known(view)
    assert not path.exists()
    keep(view, [0, 1, 2])
    view.flush()
    assert known(store(tmp_path).open(0, 0)) == [0, 1, 2]


def test_a_file_of_something_else_is_damaged(tmp_path):
    there = store(tmp_path)
    there.write("00000-00-", {"samples": torch.tensor([99]), "scores": SCORES[:1]})
    with pytest.warns(UserWarning, match="is damaged"):
        assert not known(there.open(0, 0))
    there.write("00000-00-", {"scores": SCORES[:1]})
    with pytest.warns(UserWarning, match="is damaged"):
        assert not known(there.open(0, 0))


def test_a_full_disk_is_told_once(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    there = store(tmp_path)
    view = there.open(0, 0)
    keep(view, [0, 1])
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="No space left on device; no further outputs"):
        view.flush()
    assert not there.writable
    assert not known(view)
    keep(view, [2])
    view.flush()  # silently
    assert not shards(tmp_path)
    assert not list(there.folder.glob(".*"))


def test_drafts_of_dead_writers_are_removed(tmp_path):
    folder = store(tmp_path).folder
    host = os.uname().nodename[:16]
    dead, alive, other = (
        folder / f".00000-00-ab.safetensors.{name}"
        for name in (f"{host}-999999999", f"{host}-{os.getpid()}", "elsewhere-999999999")
    )
    for path in (dead, alive, other):
        path.write_bytes(b"half")
    store(tmp_path)
    assert not dead.exists()
    assert alive.exists()
    assert other.exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ResourceError, match=r"cannot be made: .*; name another --cache-dir"):
        store(tmp_path / "taken")


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    view = store(tmp_path).open(0, 0)
    keep(view, [0])
    view.flush()

    def refuse(self, *mode):
        raise PermissionError(errno.EACCES, "Permission denied")

    there = store(tmp_path)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ResourceError, match="cannot be read: Permission denied"):
        there.open(0, 0)
