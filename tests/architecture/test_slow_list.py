"""tests/slow.txt names tests that there are."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LINES = (TESTS / "slow.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("#")])
def test_line_is_a_test(line):
    file, _, name = line.partition("::")
    assert f"def {name.partition('[')[0]}(" in (TESTS / file).read_text(encoding="utf-8")
