import json
import sys
from pathlib import Path

import pytest

import selfdistill.comparison.jobs as order

PRETEND = Path(__file__).with_name("pretend_train.py")


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Runs of a study are made by pretend_train.py; the fixture tells what they come to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(order, "COMMAND", (sys.executable, str(PRETEND)))
    monkeypatch.setattr(order, "LOOK", 0.02)
    monkeypatch.setattr("selfdistill.comparison.launch.LOOK", 0.02)
    monkeypatch.setattr("selfdistill.comparison.slurm.LOOK", 0.02)

    def tell(**runs: str) -> None:
        words = {name.replace("_", " "): what for name, what in runs.items()}
        monkeypatch.setenv("PRETEND", json.dumps(words))

    return tell
