"""Help, versions and mistyped options: at once, without torch."""

import subprocess
import sys

import pytest
from command import say

import selfdistill
from selfdistill.cli import app

HEAVY = ("torch", "torchvision", "timm", "lightning_fabric", "torchmetrics", "selfdistill.core")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"], ["trian"]])
def test_imports_nothing_heavy(words):
    command = [sys.executable, "-X", "importtime", "-m", "selfdistill", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "selfdistill.cli" in imported
    assert not imported & set(HEAVY)


def test_the_package_imports_nothing_heavy():
    code = "import sys, selfdistill; dir(selfdistill); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_package_offers_its_names():
    assert {"Run", "compare", "diagnose", "load", "train", "wrap"} <= set(dir(selfdistill))
    assert callable(selfdistill.train)
    assert callable(selfdistill.load)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = selfdistill.trian


def test_version():
    assert say("--version").out == f"selfdistill {selfdistill.__version__}\n"


def test_every_command_has_help():
    there = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert there >= {"train", "evaluate", "exits", "export", "anytime", "compare", "reproduce"}
    for command in there:
        assert say(command, "-h").code == 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["trian"], "train"), (["train", "--epoch", "3"], "--epochs"), (["taps"], "MODEL")],
)
def test_a_mistyped_word_is_a_usage_error_with_a_hint(words, hint):
    said = say(*words)
    assert said.code == 2
    assert hint in said.err
    assert "Traceback" not in said.err
