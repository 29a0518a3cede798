"""Apply each mutant of tests/mutations.toml to a copy of the source and run the tests beside it.

uv run python scripts/mutations.py [PART OF A FILE'S NAME]

A mutant whose tests pass survives; it is printed, and the exit code is 1.
"""

import os
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "selfdistill"
TABLE = ROOT / "tests" / "mutations.toml"


class Mutant(NamedTuple):
    """A text of a file below src/selfdistill, what it becomes, and the tests that must fail."""

    file: str
    old: str
    new: str
    tests: list[str]


def mutants() -> list[Mutant]:
    """The table."""
    return [Mutant(**row) for row in tomllib.loads(TABLE.read_text("utf-8"))["mutant"]]


def test_status(mutant: Mutant, source: Path) -> int:
    """pytest's exit code for a copy of the source, 1 where a test fails.

    The tests run in a fork of this process, which has imported the libraries but not selfdistill:
    torch takes longer than most of them.
    """
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    import pytest

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.environ["PYTHONPATH"] = str(source)  # of the processes that a test starts
    sys.path.insert(0, str(source))
    sys.modules.pop("selfdistill", None)
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--runslow"]
    os._exit(int(pytest.main([*options, *(str(ROOT / "tests" / test) for test in mutant.tests)])))


def survives(mutant: Mutant) -> bool:
    """Whether the tests pass with the mutant in place."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "selfdistill"
        shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / mutant.file
        text = file.read_text("utf-8")
        assert text.count(mutant.old) == 1, mutant
        file.write_text(text.replace(mutant.old, mutant.new), "utf-8")
        status = test_status(mutant, Path(folder))
    if status not in (0, 1):
        print(f"pytest ended with {status} for {mutant}", flush=True)
    return status != 1


def main() -> None:
    """Print the survivors and the score."""
    import scipy.stats  # noqa: F401
    import torch._dynamo
    import torchmetrics  # noqa: F401

    torch.set_num_threads(1)
    os.chdir(ROOT)
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [mutant for mutant in mutants() if part in mutant.file]
    killed = 0
    for mutant in chosen:
        if survives(mutant):
            print(f"survives: {mutant.file}: {mutant.old!r} -> {mutant.new!r}", flush=True)
        else:
            killed += 1
    print(f"{killed} of {len(chosen)} mutants killed")
    raise SystemExit(killed < len(chosen))


if __name__ == "__main__":
    main()
