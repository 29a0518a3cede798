"""The table of mutants fits the source."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTANTS = tomllib.loads((ROOT / "tests" / "mutations.toml").read_text(encoding="utf-8"))["mutant"]


def test_every_old_text_occurs_once():
    for mutant in MUTANTS:
        text = (ROOT / "src" / "selfdistill" / mutant["file"]).read_text(encoding="utf-8")
        assert text.count(mutant["old"]) == 1, mutant
        assert mutant["old"] != mutant["new"], mutant


def test_every_test_file_is_there():
    named = {test for mutant in MUTANTS for test in mutant["tests"]}
    assert all((ROOT / "tests" / test).is_file() for test in named)
    assert len(MUTANTS) >= 40
