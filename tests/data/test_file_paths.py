"""Paths in little memory, against the strings themselves and `os.path`."""

import os
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from selfdistill.data.file_paths import FilePaths

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
NAMES = NAMES.filter(lambda name: name not in (".", ".."))
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join))


@given(PATHS, st.booleans())
def test_they_are_the_strings(paths, absolute):
    paths = [f"/{path}" if absolute else path for path in paths]
    kept = FilePaths.of(iter(paths))
    assert (len(kept), [*kept]) == (len(paths), paths)
    assert [kept[i] for i in range(len(paths))] == paths
    assert [*FilePaths.of([os.fsencode(path) for path in paths])] == paths
    assert [*FilePaths.of([Path(path) for path in paths])] == paths


@given(PATHS, st.data())
def test_what_is_taken(paths, data):
    index = data.draw(st.lists(st.integers(0, len(paths) - 1)) if paths else st.just([]))
    taken = FilePaths.of(paths).take(np.array(index, np.int64))
    assert [*taken] == [paths[i] for i in index]
    assert [*taken.take(np.arange(len(taken))[::-1])] == [paths[i] for i in reversed(index)]


@given(PATHS.filter(bool), st.booleans())
def test_relative_ones_are_those_of_the_library(paths, absolute):
    paths = [f"/{path}" if absolute else path for path in paths]
    parent = os.path.commonpath([os.path.dirname(path) for path in paths])
    expected = [os.fsencode(os.path.relpath(path, parent or ".")) for path in paths]
    assert [*FilePaths.of(paths).relative()] == expected


def test_names_that_are_no_text():
    path = os.fsdecode(b"/a/\xff\xfe.png")
    kept = FilePaths.of([path])
    assert ([*kept], [*kept.relative()]) == ([path], [b"\xff\xfe.png"])
    assert [*FilePaths.of([]).relative()] == []


def test_memory_is_that_of_the_names():
    paths = FilePaths.of(f"/data/train/class{i % 10}/{i:08}.jpg" for i in range(10_000))
    arrays = paths.starts, paths.ends, paths.owners
    assert sum(array.nbytes for array in arrays) + len(paths.names) == 10_000 * (12 + 20)
    assert len(paths.folders) == 10
