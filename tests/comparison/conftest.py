import json
from pathlib import Path

import pytest

from selfdistill.comparison import jobs

PRETEND = Path(__file__).with_name("pretend_train.py")


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Runs of a study are made by pretend_train.py; the fixture scripts how each ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "PROGRAM", str(PRETEND))
    monkeypatch.setattr("selfdistill.comparison.launch.IMPORTS", ())
    monkeypatch.setattr("selfdistill.comparison.launch.OPTIONAL_IMPORTS", ())
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)
    monkeypatch.setattr("selfdistill.comparison.launch.POLL_SECONDS", 0.02)
    monkeypatch.setattr("selfdistill.comparison.slurm.POLL_SECONDS", 0.02)

    def script(**runs: str) -> None:
        behavior = {name.replace("_", " "): word for name, word in runs.items()}
        monkeypatch.setenv("PRETEND", json.dumps(behavior))

    return script
