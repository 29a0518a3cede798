"""Folders of data as accidents leave them: read, or refused in one sentence."""

import os
import shutil
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_layouts_as_downloaded import READ, REFUSED, camvid, image, write

from selfdistill.core import SelfdistillError
from selfdistill.data import EvalLoader, load

CASES = int(os.environ.get("HOSTILE_CASES", "2000"))
TASKS = ("classification", "segmentation", "detection")


def masks(path: Path) -> None:
    """Images beside masks of their names."""
    for i in range(6):
        image(path / "images" / f"{i}.jpg")
        (path / "masks").mkdir(exist_ok=True)
        pixels = [(k * (i + 1)) % 3 for k in range(32 * 48)]
        Image.frombytes("L", (48, 32), bytes(pixels)).save(path / "masks" / f"{i}.png")
    write(path / "classes.txt", "sky\nroad\ntree\n")


LAYOUTS = [*READ, *REFUSED, masks, camvid]
CONTENTS = (
    b"", b"\0" * 100, b"\xff\xd8\xff\xe0" + b"\0" * 20, b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<svg/>",
    b"\xff\xfe\x00", b"{", b"[]", b"{}", b"null", b"[" * 5000, b"-1 0.5 0.5 0.2 0.2\n",
    b"0 nan inf 1e999 0\n", b"9" * 6000 + b" .5 .5 .2 .2\n", b"0 2 2 2 2\n", b"a,b\n\n,,\n",
    b"<annotation/>", b"<annotation><object></annotation>", b"names: !!python/object:os.x {}\n",
    b"names: [[[1]]]\nnc: -3\n", b"nc: &a [*a]\n", b"\n" * 1000, b"cat\ncat\n",
    b'{"images": [], "annotations": 3, "categories": {}}',
    b'{"images": [{"id": 1e999, "file_name": null}], "annotations": [{}], "categories": [1]}',
)  # fmt: skip
NAMES = (
    ".hidden", "._0.jpg", "Thumbs.db", ".DS_Store", "a b.jpg", "ü\u0301.jpg", "odd\udcff.jpg",
    "new\nline.png", "-x.jpg", "train", "val", "test", "images", "labels", "masks", "classes.txt",
    "data.yaml", "0.JPG", "x.jpg.jpg", "x.tiff", "con.png", "n" * 250, "annotations", "0.txt",
)  # fmt: skip
KINDS = ("delete", "replace", "cut", "rename", "add", "folder", "fifo", "link", "loop", "picture",
         "unreadable", "copy")  # fmt: skip


def spoil(root: Path, kind: str, place: int, name: str, content: bytes) -> None:
    """Change one file or folder below a root, chosen by a number."""
    everything = sorted(root.rglob("*"))
    target = everything[place % len(everything)] if everything else root
    folder = target.parent if kind == "rename" or not target.is_dir() else target
    new = folder / name
    if kind == "delete" and target != root:
        shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()
    elif kind == "replace" and target.is_file():
        target.write_bytes(content)
    elif kind == "cut" and target.is_file():
        target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    elif kind == "unreadable" and target.is_file():
        target.chmod(0)
    elif os.path.lexists(new):
        return
    elif kind == "rename" and target != root:
        target.rename(new)
    elif kind == "add":
        new.write_bytes(content)
    elif kind == "folder":
        new.mkdir()
    elif kind == "fifo":
        os.mkfifo(new)
    elif kind == "link":
        new.symlink_to(target)
    elif kind == "loop":
        new.symlink_to(new.parent)
    elif kind == "picture":
        mode = ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F")[place % 8]
        size = ((1, 1), (1, 900), (48, 32), (3, 2))[place % 4]
        suffix = ".tiff" if mode in ("CMYK", "F") else ".png"
        Image.new(mode, size).save(new.with_name(f"{new.name[:200]}{suffix}"))
    elif kind == "copy" and target.is_file():
        shutil.copy(target, new)


def refusal(name: str, task: str, **keys) -> str:
    """What a user is told of a data set, "" where it and each of its images can be read."""
    try:
        data = load(name, task=task, **keys)
        for images in (data.train, data.val, data.test):
            if images is not None:
                for batch in EvalLoader(images, batch_size=4, mean=data.mean, std=data.std):
                    assert torch.isfinite(batch.inputs).all()
    except SelfdistillError as error:
        return str(error)
    return ""


faults = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 200),
        st.sampled_from(NAMES),
        st.sampled_from(CONTENTS),
    ),
    min_size=1,
    max_size=4,
)
policies = st.fixed_dictionaries(
    {},
    optional={
        "image_size": st.sampled_from([1, 8, 33]),
        "val_fraction": st.sampled_from([0.0, 0.01, 0.5, 0.99]),
        "max_train_images": st.sampled_from([1, 2, 10**9]),
        "empty_images": st.sampled_from(["keep", "refuse", "missing"]),
        "invalid_boxes": st.sampled_from(["refuse", "fix"]),
        "ignore_index": st.sampled_from([-1, 0, 255, 10**6]),
    },
)
cases = {
    "layout": st.sampled_from(LAYOUTS),
    "task": st.sampled_from([*TASKS, None, None]),
    "faults": faults,
    "keys": policies,
}


def check(time_limit, layout, task, faults, keys) -> None:
    task = task or (READ | REFUSED).get(layout, ("segmentation",))[0]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = Path(folder) / "data"
        root.mkdir()
        layout(root)
        for fault in faults:
            spoil(root, *fault)
        with time_limit(60):
            sentence = refusal(f"folder:{root}", task, **keys)
    assert len(sentence) < 2000
    assert "\n" not in sentence.replace("new\nline", "")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(**cases)
def test_no_folder_raises_anything_else(time_limit, layout, task, faults, keys):
    check(time_limit, layout, task, faults, keys)


@pytest.mark.slow
@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(**cases)
def test_none_of_many_folders_raises_anything_else(time_limit, layout, task, faults, keys):
    check(time_limit, layout, task, faults, keys)
