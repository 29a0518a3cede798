import json
import shutil
from pathlib import Path

import pytest
from command import TINY, Said, say

from selfdistill.comparison import jobs

PRETEND = Path(__file__).parents[1] / "comparison" / "pretend_train.py"


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """An empty working directory, a wide terminal, one process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def first(tmp_path_factory) -> tuple[Said, Path]:
    """What a small run said, and its directory; not to be changed."""
    place = tmp_path_factory.mktemp("runs") / "first"
    return say("train", *TINY, "--save-every-steps", 1, "--out", place), place


@pytest.fixture
def run(first, tmp_path) -> Path:
    """A run of one's own."""
    return Path(shutil.copytree(first[1], tmp_path / "run"))


@pytest.fixture
def pretend(monkeypatch):
    """Runs of a study are made by a stand-in; the fixture scripts how each ends."""
    monkeypatch.setattr(jobs, "PROGRAM", str(PRETEND))
    monkeypatch.setattr("selfdistill.comparison.launch.IMPORTS", ())
    monkeypatch.setattr("selfdistill.comparison.launch.OPTIONAL_IMPORTS", ())

    def script(**runs: str) -> None:
        behavior = {name.replace("_", " "): word for name, word in runs.items()}
        monkeypatch.setenv("PRETEND", json.dumps(behavior))

    return script
