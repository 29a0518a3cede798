import os
import shutil
from pathlib import Path

import pytest
from attacked import KEPT


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """An empty working directory, in which the canary would appear."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert not os.listdir()


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run of one's own."""
    (kept,) = KEPT.glob("v0.1.0")
    return Path(shutil.copytree(kept, tmp_path / "run"))
