"""docs/methods.md is what the code says today."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_page_is_up_to_date():
    page = runpy.run_path(str(ROOT / "scripts" / "methods_page.py"))["page"]
    shown = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert shown == page(), "run scripts/methods_page.py"
