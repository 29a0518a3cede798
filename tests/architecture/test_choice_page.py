"""docs/guide/choose.md is what the measurements say today."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_page_is_up_to_date(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    page = runpy.run_path(str(ROOT / "benchmarks" / "choice.py"))["page"]
    shown = (ROOT / "docs" / "guide" / "choose.md").read_text(encoding="utf-8")
    assert shown == page(), "run benchmarks/choice.py"
