"""Listings that are kept: the same as those made anew, and made anew where anything changed."""

import fcntl
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from shard_files import encoded

from selfdistill.core import DataError
from selfdistill.data import kept_listing, listing, load, read_extra_images
from selfdistill.data.class_folders import read_class_folders
from selfdistill.data.kept_listing import listed_images
from selfdistill.data.picture_folders import read_picture_folder
from selfdistill.recipe.data_check import describe_data

SECOND = 10**9
PICTURE = encoded(0)


def at(monkeypatch, seconds: float = 10) -> None:
    """Let listings begin so much later than what was written just now."""
    clock = SimpleNamespace(time_ns=lambda: time.time_ns() + int(seconds * SECOND))
    monkeypatch.setattr(kept_listing, "time", clock)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_listing, "CACHE", tmp_path / "cache")
    for module in (kept_listing, listing):
        monkeypatch.setattr(module, "MANY", 3)
    at(monkeypatch)
    return tmp_path / "cache" / "listings"


def put(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded(seed))
    return file


@pytest.fixture
def folder(tmp_path):
    """Parts of two classes, nested, with links to a class and to a picture, and other files."""
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    for seed in range(4):
        put(root / "train" / "ant" / f"{seed}.png", seed)
        put(root / "train" / "bee" / ("", "old", "old/er")[seed % 3] / f"{seed}.png", seed + 4)
        put(elsewhere / "cow" / f"{seed}.png", seed + 8)
        put(elsewhere / "loose" / f"{seed}.png", seed + 16)
    (root / "train" / "cow").symlink_to(elsewhere / "cow")
    (root / "train" / "ant" / "linked.png").symlink_to(elsewhere / "loose" / "0.png")
    for name in ("ant", "bee", "cow"):
        put(root / "val" / name / "x.png", 12)
    (root / "train" / "ant" / "notes.docx").touch()
    return root


def outcome(path: Path, read=read_class_folders):
    splits = read(path)
    parts = {name: getattr(splits, name) for name in ("train", "val", "test")}
    files = {n: ([*part._paths], part.labels.tolist()) for n, part in parts.items() if part}
    return files, splits.classes, splits.notes


def fresh(path: Path, read=read_class_folders):
    """The outcome without what was kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_listing, "_stored", lambda place: None)
        patch.setattr(kept_listing, "_keep", lambda *about: None)
        return outcome(path, read)


def is_kept(path: Path, monkeypatch, read=read_class_folders) -> bool:
    """Whether reading looks into no folder."""
    looked = []
    with monkeypatch.context() as patch:
        scan = listing._unsorted_entries
        patch.setattr(listing, "_unsorted_entries", lambda f: looked.append(f) or scan(f))
        outcome(path, read)
    return not looked


@pytest.mark.parametrize("read", [read_class_folders, read_picture_folder])
def test_it_is_that_made_anew(folder, monkeypatch, read):
    expected = fresh(folder, read)
    assert outcome(folder, read) == expected
    assert is_kept(folder, monkeypatch, read)
    assert outcome(folder, read) == expected
    flat = folder / "train"
    assert outcome(flat, read) == outcome(flat, read) == fresh(flat, read)


def test_data_are_described_alike(folder, monkeypatch):
    monkeypatch.setattr("selfdistill.data.class_folders._IN_MEMORY", 0)
    first, again = (describe_data(load(f"folder:{folder}")) for _ in range(2))
    assert is_kept(folder, monkeypatch)
    assert first == again
    moved = folder.rename(folder.with_name("moved"))
    assert describe_data(load(f"folder:{moved}")).parts == first.parts


def test_a_relative_path_stays_one(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    path = Path(folder.name)
    assert outcome(path) == outcome(path) == fresh(path)
    assert is_kept(path, monkeypatch)
    shutil.copytree(folder, folder.parent / "other" / folder.name)
    put(folder.parent / "other" / folder.name / "train" / "ant" / "more.png")
    monkeypatch.chdir(folder.parent / "other")
    assert outcome(path) == fresh(path)


def test_extra_images_and_their_digest(folder, monkeypatch):
    first, again = (read_extra_images(f"folder:{folder}") for _ in range(2))
    assert (first.sha256, first.notes) == (again.sha256, again.notes)
    assert [*first.images._paths] == [*again.images._paths]
    put(folder / "val" / "ant" / "y.png")
    assert len(read_extra_images(f"folder:{folder}").images) == len(first.images) + 1


def replace_by_another(folder):
    put(folder / "new.png", 99).replace(folder / "train" / "ant" / "0.png")


def swap(folder):
    """One folder takes the place of another that has the same names and times."""
    ant = folder / "train" / "ant"
    shutil.copytree(ant, folder / "copy", symlinks=True)
    (folder / "copy" / "1.png").rename(folder / "copy" / "7.png")
    status = ant.stat()
    shutil.rmtree(ant)
    (folder / "copy").rename(ant)
    os.utime(ant, ns=(status.st_atime_ns, status.st_mtime_ns))


def retarget(folder):
    link = folder / "train" / "cow"
    other = shutil.copytree(link, folder.parent / "elsewhere" / "calf")
    put(other / "9.png")
    link.unlink()
    link.symlink_to(other)


def dated_back(folder):
    """A picture is added, and the folder gets back the time that it had."""
    ant = folder / "train" / "ant"
    status = ant.stat()
    put(ant / "added.png")
    os.utime(ant, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {
    "a picture is added": lambda p: put(p / "train" / "ant" / "added.png"),
    "one is added further below": lambda p: put(p / "train" / "bee" / "old" / "er" / "added.png"),
    "one is added where a link leads": lambda p: put(p / "../elsewhere/cow/added.png"),
    "a folder is added further below": lambda p: put(p / "train" / "bee" / "new" / "added.png"),
    "a class is added": lambda p: put(p / "train" / "dog" / "0.png"),
    "a linked class is added": lambda p: (p / "train" / "dog").symlink_to(
        put(p / "../other/0.png").parent.resolve()
    ),
    "a part is added": lambda p: put(p / "test" / "ant" / "x.png"),
    "a picture is removed": lambda p: (p / "train" / "ant" / "0.png").unlink(),
    "a nested folder is removed": lambda p: shutil.rmtree(p / "train" / "bee" / "old" / "er"),
    "what a link leads to is removed": lambda p: (p / "../elsewhere/loose/0.png").unlink(),
    "a picture is renamed": lambda p: (p / "train/ant/0.png").rename(p / "train/ant/00.png"),
    "it becomes no picture": lambda p: (p / "train/ant/0.png").rename(p / "train/ant/0.txt"),
    "it is moved to another class": lambda p: (p / "train/ant/0.png").rename(p / "train/bee/z.png"),
    "a class is renamed": lambda p: [
        (p / part / "bee").rename(p / part / "wasp") for part in ("train", "val")
    ],
    "a part is renamed": lambda p: (p / "val").rename(p / "test"),
    "one takes the place of another": replace_by_another,
    "a folder takes the place of another": swap,
    "a link leads elsewhere": retarget,
    "a folder's time is set back": dated_back,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read", [read_class_folders, read_picture_folder])
def test_after_a_change_it_is_made_anew(folder, monkeypatch, change, read):
    outcome(folder, read)
    assert is_kept(folder, monkeypatch, read)
    CHANGES[change](folder)
    assert not is_kept(folder, monkeypatch, read)
    assert outcome(folder, read) == fresh(folder, read)


def test_a_list_of_labels_that_is_edited(folder, monkeypatch):
    shutil.rmtree(folder / "val")
    put(folder / "val" / "images" / "0.png")
    labels = folder / "val" / "val_annotations.txt"
    labels.write_text("0.png\tbee\n")
    assert outcome(folder)[0]["test"][1] == [1]
    assert is_kept(folder, monkeypatch)
    labels.write_text("0.png\tant\n")
    assert outcome(folder)[0]["test"][1] == [0]


def test_a_class_that_becomes_unknown_is_refused_again(folder):
    outcome(folder)
    (folder / "train" / "bee").rename(folder / "train" / "wasp")
    with pytest.raises(DataError, match="bee is no class of the training set"):
        outcome(folder)


def test_a_picture_that_is_written_over_is_read_as_it_is(folder, monkeypatch):
    outcome(folder)
    put(folder / "train" / "ant" / "0.png", 77)
    assert is_kept(folder, monkeypatch)
    assert read_class_folders(folder).train.read_bytes(0) == encoded(77)


@pytest.mark.parametrize("seconds", [-3600, 0, 2.5])
def test_what_was_changed_just_now_is_not_kept(folder, monkeypatch, cache, seconds):
    at(monkeypatch, seconds)
    outcome(folder)
    assert not [*cache.glob("*.safetensors")]


@pytest.mark.parametrize("grain", [10**6, SECOND, 2 * SECOND])
def test_times_of_a_coarse_file_system(folder, monkeypatch, grain):
    """A change within the grain of the one before leaves the stamp as it was."""
    now = [1_000 * SECOND]
    dates = dict.fromkeys([folder / "train" / "ant"], now[0])

    def stamp(status):
        ant = os.path.samestat(status, (folder / "train" / "ant").stat())
        date = dates[folder / "train" / "ant"] if ant else 0
        return listing.Stamp(1 + date // grain * grain, 0, 0, 0, 0)

    monkeypatch.setattr(listing.Stamp, "of", stamp)
    monkeypatch.setattr(kept_listing, "time", SimpleNamespace(time_ns=lambda: now[0]))
    for number in range(12):
        now[0] += grain // 3
        assert outcome(folder) == fresh(folder)
        put(folder / "train" / "ant" / f"added{number}.png")
        dates[folder / "train" / "ant"] = now[0]
        assert outcome(folder) == fresh(folder)
    now[0] += 10 * SECOND
    outcome(folder)
    assert is_kept(folder, monkeypatch)


def test_what_no_stamp_would_tell_is_not_kept(folder, monkeypatch, cache):
    link = folder / "train" / "ant" / "later.png"
    for target in ("gone.png", "linked.png"):  # a link to nothing, and one to a link
        link.symlink_to(target)
        outcome(folder)
        assert not [*cache.glob("*.safetensors")]
        link.unlink()
    (folder / "train" / "dog").symlink_to(folder.parent / "unmounted")
    outcome(folder)
    assert not [*cache.glob("*.safetensors")]
    (folder / "train" / "dog").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(kept_listing, "_served_by_program", lambda devices: True)
        outcome(folder)
    assert not [*cache.glob("*.safetensors")]
    outcome(folder)
    assert len([*cache.glob("*.safetensors")]) == 1


def test_file_systems_of_programs(monkeypatch, tmp_path):
    table = (
        "36 35 98:0 / /mnt1 rw,noatime master:1 - ext3 /dev/root rw\n"
        "37 35 0:52 / /mnt/with\\040space rw shared:2 - fuse.gcsfuse bucket rw,user_id=0\n"
        "38 35 0:53 / /sys/fs/fuse rw - fusectl none rw\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda path, **keys: table)
    assert not kept_listing._served_by_program({os.makedev(98, 0), os.makedev(8, 1)})
    assert kept_listing._served_by_program({os.makedev(98, 0), os.makedev(0, 52)})

    def absent(path, **keys):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert not kept_listing._served_by_program({os.makedev(0, 52)})


def test_small_folders_leave_nothing(folder, monkeypatch, cache):
    for module in (kept_listing, listing):
        monkeypatch.setattr(module, "MANY", 1000)
    outcome(folder)
    assert not cache.exists()


@pytest.mark.parametrize("kind", ["cut", "empty", "other", "flipped", "folder"])
def test_a_damaged_file_is_made_anew(folder, cache, kind):
    expected = outcome(folder)
    (file,) = cache.glob("*.safetensors")
    whole = file.read_bytes()
    places = range(0, len(whole), 199) if kind in ("cut", "flipped") else [0]
    for place in places:
        if kind == "folder":
            file.unlink()
            file.mkdir()
        elif kind == "flipped":
            flipped = whole[place] ^ 0x10
            file.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
        else:
            file.write_bytes({"cut": whole[:place], "empty": b"", "other": PICTURE}[kind])
        assert outcome(folder) == expected
    assert kind == "folder" or kept_listing._stored(file) is not None


def test_where_nothing_can_be_written(folder, monkeypatch, tmp_path):
    expected = fresh(folder)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "cache", Path("/proc/none"), Path("~nobody-at-all/x")):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(kept_listing, "CACHE", place)
        assert outcome(folder) == outcome(folder) == expected


def _list(folder, barrier, results):
    """Read in a process of its own, and say whether it listed all by itself."""
    keep, kept = kept_listing._keep, []
    kept_listing._keep = lambda *about: (time.sleep(0.3), kept.append(True), keep(*about))
    barrier.wait()
    results.put((outcome(folder), bool(kept)))


@pytest.mark.parametrize("lockable", [True, False])
def test_several_processes_at_once(folder, monkeypatch, cache, lockable):
    def refuse(*about):
        raise OSError("no locks available")

    if not lockable:
        monkeypatch.setattr(fcntl, "flock", refuse)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_list, args=(folder, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    expected = fresh(folder)
    assert all(one == expected for one, _ in outcomes)
    assert sum(kept for _, kept in outcomes) == (1 if lockable else 4)
    assert is_kept(folder, monkeypatch)
    assert not [*cache.glob(".*")]  # no draft is left


def test_waiting_for_one_that_keeps_nothing(folder, monkeypatch, cache):
    """All go on, together, where the process that they waited for left no listing."""
    place = kept_listing._place(folder, "class folders")
    place.parent.mkdir(parents=True)
    with (
        place.with_suffix(".lock").open("ab") as other,
        kept_listing._locked(place),
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with place.with_suffix(".lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with kept_listing._locked(place):
            assert outcome(folder) == fresh(folder)


def test_an_error_is_that_of_a_listing_made_anew(tmp_path):
    def read(_):
        raise DataError("no picture")

    with pytest.raises(DataError, match="no picture"):
        listed_images(tmp_path, "pictures", read)
