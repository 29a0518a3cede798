"""What can be refused without torch is refused before it is imported."""

import subprocess
import sys

import selfdistill.methods  # noqa: F401  registers them all
from selfdistill.core import METHODS
from selfdistill.recipe.document import shipped_methods

PROGRAM = """
import sys
from selfdistill.cli import app

WRONG = [
    ("--method", "muze"),
    ("--method", "muse+nothing"),
    ("--data", "folder:nowhere"),
    ("--data", "npz:nowhere.npz"),
    ("--weights", "nowhere.pth"),
    ("--recipe", "nowhere.toml"),
    ("--epochs", "-1"),
    ("--lr", "fast"),
]
for words in WRONG:
    try:
        app(["train", *words], standalone_mode=True)
    except SystemExit as end:
        assert end.code in (2, 4), (words, end.code)
assert "torch" not in sys.modules
"""


def test_no_torch_for_a_mistyped_word(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "did you mean 'muse'" in done.stderr


def test_names_of_files_are_names_of_methods():
    ours = [name for name in METHODS if METHODS[name].__module__.startswith("selfdistill.")]
    assert shipped_methods() == sorted(ours)
