"""Every line of slow.txt begins the name of a test."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_line_names_a_test():
    text = (TESTS / "slow.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))
    for line in lines:
        file, _, test = line.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test.partition("[")[0] in names, line
