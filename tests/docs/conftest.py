"""What the pages find in their working directory, and the list of blocks that are not run."""

import contextlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from blocks import ROOT, blocks, pages
from filelock import FileLock
from PIL import Image

from selfdistill.comparison.fork_server import fork_server

IMPORTS = (
    *("selfdistill.cli.train", "selfdistill.runs.run", "selfdistill.reporting.rendering"),
    *("timm", "torchvision"),
)

METHODS = ("muse", "ce")  # of the runs on digits
FLOWERS = {"daisy": (230, 230, 220), "poppy": (220, 60, 40), "violet": (110, 60, 190)}


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--runslow"):
        terminalreporter.section("blocks of the documentation that are not run")
        for page in pages():
            for block in blocks(page.read_text(encoding="utf-8")):
                if block.excuse:
                    place = f"{page.relative_to(ROOT)}:{block.line}"
                    terminalreporter.write_line(f"{place}: {block.excuse}")


@pytest.fixture(scope="session")
def surroundings(tmp_path_factory, testrun_uid) -> dict[str, str]:
    """What is set in the environment of a block: this one's command, one thread, no downloads."""
    scripts = Path(sys.executable).parent
    changed = {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
    }
    if sys.dont_write_bytecode:
        # Every command is a process of its own: they share what has been compiled.
        place = tmp_path_factory.getbasetemp().parent / f"pyc-{testrun_uid}"
        changed |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(place)}
    return changed


@pytest.fixture(scope="session")
def server(surroundings):
    """Forks the pages' processes."""
    with fork_server(IMPORTS, **surroundings) as server:
        yield server


@pytest.fixture(scope="session")
def workspace(tmp_path_factory, testrun_uid, server) -> Path:
    """What the pages take for granted, made once by whichever test process comes first."""
    place = tmp_path_factory.getbasetemp().parent / f"workspace-{testrun_uid}"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            flowers(place / "flowers")
            with contextlib.chdir(place):
                runs = [server.start("selfdistill", digits(m), place / "log") for m in METHODS]
                assert [run.wait() for run in runs] == [0, 0]
    return place


def digits(method: str) -> list[str]:
    """Words of the command that trains `runs/digits-METHOD`."""
    return ["train", "--method", method, "--epochs", "3", "--out", f"runs/digits-{method}"]


def flowers(place: Path) -> None:
    """Class folders of 40 pictures each, 32×32: a disc in the class's color on noisy green."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    for name, color in FLOWERS.items():
        (place / name).mkdir(parents=True)
        for number in range(40):
            x, y, radius = draw.integers(10, 22), draw.integers(10, 22), draw.integers(5, 10)
            picture = np.full((32, 32, 3), (60, 120, 50)) + draw.integers(-40, 40, (32, 32, 3))
            picture[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = color
            Image.fromarray(picture.astype(np.uint8)).save(place / name / f"{number:02}.png")
