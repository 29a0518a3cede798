"""The command in this process, and pictures to give it."""

import contextlib
import io
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from PIL import Image

from selfdistill.cli import main

TINY = (
    "--method",
    "muse",
    "--epochs",
    "1",
    "--max-train-images",
    "64",
    "--batch-size",
    "32",
    "--device",
    "cpu",
)


class Said(NamedTuple):
    code: int
    out: str
    err: str


def say(*words) -> Said:
    """The command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = mock.patch.object(sys, "argv", ["selfdistill", *map(str, words)])
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return Said(code, out.getvalue(), err.getvalue())


def pictures(place: Path, classes=("cat", "dog"), each=20, side=16) -> Path:
    """A folder of color pictures for each class."""
    draw = np.random.default_rng(0)
    for name in classes:
        (place / name).mkdir(parents=True)
        for i in range(each):
            pixels = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"{i}.png")
    return place
