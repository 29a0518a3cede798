"""Colored pictures as files of one byte string each, in class folders and in shards."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cow")


def encoded(seed: int, form: str = "PNG", size: tuple[int, int] = (12, 10)) -> bytes:
    """The bytes of a picture of width × height."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def samples(count: int, seed: int = 0, **keys) -> list[tuple[str, bytes, int]]:
    """Name, bytes and label of `count` pictures, class by class."""
    labels = sorted(i % len(CLASSES) for i in range(count))
    return [(f"{i:04}", encoded(seed + i, **keys), label) for i, label in enumerate(labels)]


def write_folder(folder: Path, rows: Iterable[tuple[str, bytes, int]]) -> None:
    for name, content, label in rows:
        file = folder / CLASSES[label] / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], **keys) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **keys) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_shards(folder: Path, rows: list[tuple[str, bytes, int]], count: int = 3, **keys) -> None:
    """The pictures in `count` shards, in their order."""
    for number in range(count):
        part = rows[number * len(rows) // count : (number + 1) * len(rows) // count]
        files = [
            file
            for name, content, label in part
            for file in ((f"{name}.png", content), (f"{name}.cls", str(label).encode()))
        ]
        write_tar(folder / f"{keys.get('stem', 'train')}-{number:03}.tar", files)
